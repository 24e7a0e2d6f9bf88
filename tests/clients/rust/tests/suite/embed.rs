//! Embeddings as packed floats.

use puna_clients::v1::{EmbedRequest, VectorEncoding, embed_service_client::EmbedServiceClient};

use crate::support::connect;

async fn embed(encoding: VectorEncoding) -> Vec<Vec<f32>> {
    let texts = ["Why is the sky blue?", "the color of the sky", "two plus three"];
    let request = EmbedRequest {
        model: "llamita-embed".into(),
        inputs: texts.map(String::from).to_vec(),
        encoding: encoding.into(),
        ..Default::default()
    };
    let answer = EmbedServiceClient::new(connect().await).embed(request).await.unwrap().into_inner();
    assert_eq!(answer.encoding(), encoding);
    let packed = encoding == VectorEncoding::Float32Le;
    answer
        .vectors
        .into_iter()
        .map(|vector| {
            assert_eq!(vector.values.is_empty(), packed);
            let (numbers, rest) = vector.packed.as_chunks();
            assert!(rest.is_empty());
            let unpacked = numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            if packed { unpacked } else { vector.values }
        })
        .collect()
}

fn similarity(one: &[f32], other: &[f32]) -> f32 {
    one.iter().zip(other).map(|(a, b)| a * b).sum()
}

#[tokio::test]
async fn packed_vectors_equal_the_lists() {
    let packed = embed(VectorEncoding::Float32Le).await;
    assert_eq!(packed, embed(VectorEncoding::FloatList).await);
    assert!(packed.iter().all(|vector| vector.len() == 128));
    assert!((similarity(&packed[0], &packed[0]) - 1.0).abs() < 1e-5);
    assert!(similarity(&packed[0], &packed[1]) > similarity(&packed[0], &packed[2]));
}
