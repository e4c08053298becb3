//! What is logged. In a process of its own: a subscriber for one thread misses what other threads have switched off.
#![allow(clippy::unwrap_used)]

use async_trait::async_trait;
use poq_blobs::{
    blake2_256, Access, AccessError, AccessRequest, AccountId32, BlobClient, BlobServer, BlobStore,
    ClientConfig, Decision, Hash, RequestSigner, ServerConfig, Slot,
};
use poq_core::commitment;
use std::sync::{Arc, Mutex};
use subxt_signer::sr25519::{dev, Keypair};

const NETWORK: Hash = [3; 32];

struct Everybody;

#[async_trait]
impl Access for Everybody {
    async fn decide(&self, _: &AccessRequest) -> Result<Decision, AccessError> {
        Ok(Decision::Allow)
    }
}

/// Remembers its signatures.
struct Witnessed(Keypair, Mutex<Vec<String>>);

impl RequestSigner for Witnessed {
    fn account(&self) -> AccountId32 {
        RequestSigner::account(&self.0)
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        let signature = RequestSigner::sign(&self.0, message);
        self.1.lock().unwrap().push(hex::encode(signature));
        signature
    }
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn logs_hold_neither_signatures_nor_salts_nor_texts() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .init();
    let store = BlobStore::memory();
    let salt = [0xa5; 32];
    store
        .put_output(&Slot { network: NETWORK, task: 7, node: 4 }, "a very secret answer", salt)
        .await
        .unwrap();
    let config = ServerConfig::new(NETWORK, "127.0.0.1:0".parse().unwrap());
    let server = BlobServer::bind(config, store, Arc::new(Everybody)).await.unwrap();
    let url = server.url();
    tokio::spawn(server.serve(std::future::pending()));

    let signer = Arc::new(Witnessed(dev::alice(), Mutex::default()));
    let client = BlobClient::new(ClientConfig::new(NETWORK), signer.clone()).unwrap();
    let preimage = commitment::output(&NETWORK, 7, 4, &blake2_256(b"a very secret answer"), &salt);
    client.fetch_opening(&url, 7, 4, &blake2_256(&preimage)).await.unwrap();
    client.fetch_opening(&url, 7, 4, &[0; 32]).await.unwrap_err();
    client.fetch_output(&url, 7, 4, &blake2_256(b"a very secret answer")).await.unwrap();

    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(text.contains("/v1/tasks/7/outputs/4") && text.contains("finished processing request"), "{text}");
    assert!(text.contains(&RequestSigner::account(&dev::alice()).to_string()), "who asked: {text}");
    let signatures = signer.1.lock().unwrap();
    assert_eq!(signatures.len(), 3);
    assert!(!signatures.iter().any(|signature| text.contains(signature)), "signature");
    assert!(!text.contains(&hex::encode(salt)) && !text.contains("165, 165"), "salt");
    assert!(!text.contains("secret answer"), "output");
}
