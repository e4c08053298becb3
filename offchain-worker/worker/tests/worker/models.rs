//! The same with real models, where they are installed (`scripts/install-models.sh`). With `POQ_REQUIRE_MODELS=1` their absence is
//! a failure.

use poq_chain::types::Role;
use poq_inference::{default_models_dir, Manifest, ModelStore};
use poq_worker::{Models, Worker};

use crate::support::{free_port, Counts, Net, PATIENCE};

pub(crate) const GENERATOR: &str = "smollm2-135m-instruct";
pub(crate) const SCORERS: [&str; 3] =
    ["all-minilm-l6-v2", "paraphrase-minilm-l3-v2", "ms-marco-minilm-l12-v2"];

pub(crate) fn installed() -> bool {
    let store = ModelStore::new(Manifest::builtin(), default_models_dir());
    let missing: Vec<&str> =
        SCORERS.into_iter().chain([GENERATOR]).filter(|model| !store.is_installed(model)).collect();
    if missing.is_empty() {
        return true;
    }
    assert!(
        !std::env::var("POQ_REQUIRE_MODELS").is_ok_and(|required| required == "1"),
        "{missing:?} are not installed; scripts/install-models.sh installs them"
    );
    eprintln!("skipped: {missing:?} are not installed (scripts/install-models.sh)");
    false
}

#[tokio::test(flavor = "multi_thread")]
async fn real_models_answer_score_and_are_paid() {
    if !installed() {
        return;
    }
    let net = Net::start().await;
    let manifest = Manifest::builtin();
    let port = free_port();
    let mut nodes = Vec::new();
    let digest = |model: &str| manifest.get(model).unwrap().digest();
    nodes.push(net.register(Role::Inference, GENERATOR, digest(GENERATOR), "//operator", port).await);
    for model in SCORERS {
        nodes.push(net.register(Role::Evaluator, model, digest(model), "//operator", port).await);
    }
    let mut config = net.config("worker", &nodes);
    config.limits.max_tokens = 24;
    let worker = Worker::start(config, net.deps(&nodes, Models::new()).await).await.unwrap();
    worker.ready(PATIENCE * 3).await.unwrap();

    let id = net.ask("What is the capital of France?", 1, 3).await;
    let task = net.settled(id).await;
    Counts::of(&net.events().await, id).assert_once(&task);
    let quality = task.task.outputs[0].quality.quality().unwrap();
    eprintln!(
        "quality {quality}, panel {:?}",
        task.task.panel.iter().map(|seat| &seat.scores).collect::<Vec<_>>()
    );
    assert!(quality.ppb() > 100_000_000, "{quality}");
    for node in &nodes {
        let view = net.node(node.id).await.node;
        assert_eq!(view.record.tasks, 1, "{view:?}");
    }
    worker.shutdown();
    worker.wait().await.unwrap();
}
