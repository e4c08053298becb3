//! This program's numbers for pairs of texts, for comparison with other implementations.

use crate::{
    cli::CompareArgs,
    error::{Error, Result},
    log::read_lines,
};
use poq_inference::{
    encode::cosine,
    load_cross_encoder, load_encoder,
    quality::{
        calibration::{pearson, spearman},
        reference::{rouge_l, token_f1},
    },
    Role,
};
use serde::Serialize;
use std::{collections::BTreeMap, io::Write};

/// One value per pair.
#[derive(Serialize)]
struct Columns {
    token_f1: Vec<f64>,
    rouge_l: Vec<f64>,
    /// By model: the cosine of the two texts' vectors.
    cosine: BTreeMap<String, Vec<f64>>,
    /// By model: the logit of the pair.
    logit: BTreeMap<String, Vec<f32>>,
    /// Per bi-encoder: Pearson's and Spearman's correlation of its cosines with token F1.
    correlation: BTreeMap<String, (Option<f64>, Option<f64>)>,
    /// Where models are, so that another implementation can load the same files.
    models_dir: std::path::PathBuf,
}

pub(crate) fn compare(args: &CompareArgs) -> Result<()> {
    let pairs: Vec<(String, String)> = read_lines(&args.pairs)?;
    let store = args.store.open()?;
    let load = |name: &str| args.store.options(&store, name);
    let reference = |of: fn(&str, &[String]) -> f64| {
        pairs.iter().map(|(a, b)| of(a, std::slice::from_ref(b))).collect::<Vec<f64>>()
    };
    let mut columns = Columns {
        token_f1: reference(token_f1),
        rouge_l: reference(rouge_l),
        cosine: BTreeMap::new(),
        logit: BTreeMap::new(),
        correlation: BTreeMap::new(),
        models_dir: store.dir().to_path_buf(),
    };
    for model in store.manifest().models().iter().filter(|m| store.is_installed(&m.name)) {
        match model.role {
            Role::Generator => {}
            Role::BiEncoder => {
                let mut encoder = load_encoder(&store, &model.name, &load(&model.name))?;
                let texts: Vec<&str> = pairs.iter().flat_map(|(a, b)| [a.as_str(), b.as_str()]).collect();
                let vectors = encoder.embed(&texts)?;
                let cosines: Vec<f64> = vectors.chunks(2).map(|pair| cosine(&pair[0], &pair[1])).collect();
                let f1 = &columns.token_f1;
                columns
                    .correlation
                    .insert(model.name.clone(), (pearson(&cosines, f1), spearman(&cosines, f1)));
                columns.cosine.insert(model.name.clone(), cosines);
            }
            Role::CrossEncoder => {
                let mut encoder = load_cross_encoder(&store, &model.name, &load(&model.name))?;
                let texts: Vec<_> = pairs.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
                columns.logit.insert(model.name.clone(), encoder.score(&texts)?);
            }
        }
    }
    let stdout = std::io::stdout();
    let mut out = stdout.lock();
    serde_json::to_writer(&mut out, &columns)
        .map_err(std::io::Error::from)
        .and_then(|()| out.write_all(b"\n"))
        .map_err(|e| Error::io(std::path::Path::new("standard output"), e))
}
