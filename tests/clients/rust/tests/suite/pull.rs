//! A model from a registry, with progress.

use puna_clients::v1::{
    DeleteModelRequest, GetModelRequest, PullModelRequest, models_service_client::ModelsServiceClient,
};
use tonic::Code;

use crate::support::{connect, variable};

#[tokio::test]
async fn a_pull_reports_progress_and_leaves_the_model() {
    let name = variable("PUNA_PULL_MODEL");
    let mut models = ModelsServiceClient::new(connect().await);
    if let Err(error) = models.delete_model(DeleteModelRequest { name: name.clone() }).await {
        assert_eq!(error.code(), Code::NotFound, "{error}");
    }
    let request = PullModelRequest { name: name.clone(), insecure: true };
    let mut stream = models.pull_model(request).await.unwrap().into_inner();
    let mut last = None;
    while let Some(part) = stream.message().await.unwrap() {
        let progress = part.progress.unwrap();
        assert!(progress.completed_bytes <= progress.total_bytes, "{progress:?}");
        last = Some(progress);
    }
    assert_eq!(last.unwrap().status, "success");
    let request = GetModelRequest { name: name.clone(), ..Default::default() };
    let model = models.get_model(request).await.unwrap().into_inner();
    assert_eq!(model.model.unwrap().name, name);
    models.delete_model(DeleteModelRequest { name }).await.unwrap();
}
