//! A model from a registry, with progress.

use std::collections::HashMap;

use puna_clients::v1::{
    GetModelRequest, JobPhase, PullModelRequest, models_service_client::ModelsServiceClient, pull_model_response::Event,
};

use crate::support::{connect, variable};

#[tokio::test]
async fn a_pull_reports_progress_and_ends_with_the_model() {
    let name = variable("PUNA_PULL_MODEL");
    let mut models = ModelsServiceClient::new(connect().await);
    let request = PullModelRequest { name: name.clone(), insecure: true };
    let mut stream = models.pull_model(request).await.unwrap().into_inner();
    let mut completed = HashMap::new();
    let (mut partial, mut phases, mut pulled) = (false, Vec::new(), None);
    while let Some(part) = stream.message().await.unwrap() {
        assert!(pulled.is_none(), "a message follows the model");
        match part.event.unwrap() {
            Event::Model(model) => pulled = Some(model),
            Event::Progress(progress) => {
                if progress.phase() == JobPhase::Downloading {
                    let (done, total) = (progress.completed_bytes, progress.total_bytes);
                    let before = completed.insert(progress.digest.clone(), done).unwrap_or(0);
                    assert!(before <= done && done <= total, "{progress:?} after {before}");
                    partial |= 0 < done && done < total;
                }
                phases.push(progress.phase());
            }
        }
    }
    assert!(partial, "no part of a blob was reported");
    assert_eq!(phases.first(), Some(&JobPhase::ReadingManifest));
    assert_eq!(phases.last(), Some(&JobPhase::Done));
    let model = pulled.expect("no model at the end");
    assert_eq!(model.name, name);
    let request = GetModelRequest { name, ..Default::default() };
    let found = models.get_model(request).await.unwrap().into_inner();
    assert_eq!(found.model.unwrap().digest, model.digest);
}
