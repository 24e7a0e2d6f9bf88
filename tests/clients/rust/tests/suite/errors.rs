//! The details of errors, by which programs decide.

use puna_clients::v1::{ChatRequest, RequestOptions, SamplingOptions, chat_service_client::ChatServiceClient};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::{
    connections::secure,
    support::{connect, scripted, variable},
};
use puna_clients::v1::generate_service_client::GenerateServiceClient;

fn assert_error(error: &Status, code: Code, reason: &str) {
    assert_eq!(error.code(), code, "{error}");
    let info = error.get_details_error_info().expect("no ErrorInfo");
    assert_eq!((info.domain.as_str(), info.reason.as_str()), ("puna", reason));
}

#[tokio::test]
async fn an_unknown_model_is_named() {
    let request = ChatRequest { model: "nobody".into(), ..Default::default() };
    let error = ChatServiceClient::new(connect().await).stream_chat(request).await.unwrap_err();
    assert_error(&error, Code::NotFound, "MODEL_NOT_FOUND");
    assert_eq!(error.get_details_error_info().unwrap().metadata["model"], "nobody");
    let resource = error.get_details_resource_info().unwrap();
    assert_eq!((resource.resource_type.as_str(), resource.resource_name.as_str()), ("model", "nobody"));
}

#[tokio::test]
async fn a_wrong_field_is_named_by_its_path() {
    let sampling = SamplingOptions { temperature: Some(-5.0), ..Default::default() };
    let options = RequestOptions { sampling: Some(sampling), ..Default::default() };
    let mut request = scripted("steady", "hello");
    request.options = Some(options);
    let error = GenerateServiceClient::new(connect().await).generate(request).await.unwrap_err();
    assert_error(&error, Code::InvalidArgument, "INVALID_REQUEST");
    let request = error.get_details_bad_request().unwrap();
    let fields: Vec<_> = request.field_violations.iter().map(|each| each.field.as_str()).collect();
    assert_eq!(fields, ["options.sampling.temperature"]);
}

#[tokio::test]
async fn a_limit_says_when_to_try_again() {
    let channel = secure(&variable("PUNA_LIMITED_API_KEY")).await;
    let call = async || {
        let mut client = GenerateServiceClient::with_interceptor(channel.0.clone(), channel.1.clone());
        client.generate(scripted("steady", "hello")).await
    };
    call().await.unwrap();
    let error = call().await.unwrap_err();
    assert_error(&error, Code::ResourceExhausted, "RATE_LIMITED");
    let delay = error.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert!((1..=60).contains(&delay.as_secs()), "{delay:?}");
    assert_eq!(error.get_details_quota_failure().unwrap().violations.len(), 1);
}
