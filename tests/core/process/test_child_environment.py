import pytest

from puna.process import child_environment

SECRETS = (
    "PUNA_REGISTRY_PASSWORD",
    "PUNA_REGISTRY_TOKEN",
    "DOCKER_AUTH_CONFIG",
    "AWS_SECRET_ACCESS_KEY",
    "GITHUB_TOKEN",
    "DATABASE_URL",
    "HTTPS_PROXY",
    "NVIDIA_API_KEY",
    "LLAMA_API_KEY",
    "CUDA_TOKEN",
    "SSH_AUTH_SOCK",
)


def test_secrets_stay_with_the_server():
    assert child_environment.environment(dict.fromkeys(SECRETS, "hidden")) == {}


@pytest.mark.parametrize(
    "name", ["PATH", "HOME", "LC_ALL", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "GGML_NUMA"]
)
def test_what_native_libraries_read_is_passed_on(name):
    assert child_environment.environment({name: "1"}) == {name: "1"}


def test_the_operator_names_further_variables():
    environ = {"MY_KEY": "1", "ACME_A": "2", "ACME_B": "3", "OTHER": "4"}
    passed = child_environment.environment(environ | {"PUNA_PASS_ENVIRONMENT": " MY_KEY, ACME_* ,"})
    assert passed == {"MY_KEY": "1", "ACME_A": "2", "ACME_B": "3"}


def test_a_manifest_names_further_variables():
    environ = {"MY_KEY": "1", "ACME_A": "2", "OTHER": "4"}
    assert child_environment.environment(environ, names=("MY_KEY", "ACME_*")) == {"MY_KEY": "1", "ACME_A": "2"}


@pytest.mark.parametrize("name", ["PUNA_REGISTRY_TOKEN", "PUNA_*", "P*", "DOCKER_AUTH_CONFIG", "D*"])
def test_a_manifest_names_no_password_of_the_servers(name):
    environ = {"PUNA_REGISTRY_TOKEN": "hidden", "PUNA_REGISTRY_PASSWORD": "hidden", "DOCKER_AUTH_CONFIG": "hidden"}
    assert child_environment.environment(environ, names=(name,)) == {}
