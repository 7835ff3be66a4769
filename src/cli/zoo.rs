//! `lehr zoo`: what networks are built in code, one of them in detail, or one as an ONNX file.

use super::args::ZooArgs;
use super::compile::{check_output, size};
use super::progress::Progress;
use super::{CliResult, Failure, say, warn};
use crate::{LoadError, LoadOptions, load, total_flops};
use lehr_frontends::onnx::{OnnxModel, export};
use lehr_frontends::zoo::{NETWORKS, Net, Setting, Spec, Weights};
use lehr_ir::{Diag, Dim, Graph};
use serde_json::{Value, json};
use std::io::{BufWriter, Write};
use std::path::Path;

pub fn run(args: &ZooArgs) -> CliResult {
    match (&args.network, &args.output) {
        (None, Some(_)) => Err(Failure::usage("-o needs a network: lehr zoo NAME -o FILE")),
        (None, None) if args.json => {
            let all: Result<Vec<Value>, Failure> =
                NETWORKS.iter().map(|n| Ok(figures(&spec(n.name)?)?.json())).collect();
            say(Value::Array(all?))
        }
        (None, None) => list(),
        (Some(name), None) if args.json => say(figures(&spec(name)?)?.json()),
        (Some(name), None) => say(figures(&spec(name)?)?.text()),
        (Some(name), Some(output)) => write(name, output),
    }
}

/// A network, with or without `zoo:` before its name.
fn spec(text: &str) -> Result<Spec, Failure> {
    Spec::parse(text.strip_prefix("zoo:").unwrap_or(text)).map_err(failure)
}

fn failure(d: Diag) -> Failure {
    Failure::from(LoadError { diags: vec![d], needed: vec![], input_names: vec![] })
}

struct Figures {
    spec: Spec,
    parameters: u64,
    /// Of one image or point.
    flops: i64,
    graph: Graph,
}

/// Counts without making weights.
fn figures(spec: &Spec) -> Result<Figures, Failure> {
    let net: Net = spec.build_with(Weights::Zeros).map_err(failure)?;
    let parameters = net.parameters();
    let graph = net.finish();
    let one = graph.bind(&|_| Some(Dim::ONE)).map_err(failure)?;
    Ok(Figures { spec: spec.clone(), parameters, flops: total_flops(&one).unwrap_or(0), graph })
}

fn list() -> CliResult {
    say(format!("{:<16} {:>12} {:>8}  what it is, and its source", "network", "parameters", "FLOPs"))?;
    for network in NETWORKS {
        let f = figures(&spec(network.name)?)?;
        say(format!("{:<16} {:>12} {:>8}  {}", network.name, f.parameters, count(f.flops), network.summary))?;
        say(format!("{:<38}  {}", "", network.source))?;
    }
    say("\nFLOPs are those of one image, a multiply-add counting as two. lehr zoo NAME lists a network's settings.")
}

/// Three digits: `846 k`, `8.22 G`.
fn count(n: i64) -> String {
    let units = ["", " k", " M", " G", " T"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = if unit == 0 || value >= 99.95 {
        0
    } else if value >= 9.995 {
        1
    } else {
        2
    };
    format!("{value:.digits$}{}", units[unit])
}

impl Figures {
    fn types(&self, values: impl Iterator<Item = (String, lehr_ir::ValueId)>) -> Vec<String> {
        values.map(|(name, v)| format!("{name}: {}", self.graph.ty(v))).collect()
    }

    fn inputs(&self) -> Vec<String> {
        let name = |&v| (self.graph.value_name(v).unwrap_or_default().to_string(), v);
        self.types(self.graph.inputs().iter().map(name))
    }

    fn outputs(&self) -> Vec<String> {
        self.types(self.graph.outputs.iter().map(|o| (o.name.to_string(), o.value)))
    }

    fn text(&self) -> String {
        let network = self.spec.network;
        let mut text = format!("{}: {}\n{}\n\n", network.name, network.summary, network.source);
        text += &format!("input   {}\noutput  {}\n", self.inputs().join(", "), self.outputs().join(", "));
        text += &format!("{} parameters, {} FLOPs for one image\n\n", self.parameters, count(self.flops));
        text += "settings and their defaults\n";
        for p in network.settings {
            text += &format!("  {:<22} {}; {}\n", p.to_string(), p.doc, p.kind);
        }
        text += "  seed=1                 seed of the weights; a whole number\n";
        text += "  weights=FILE           .safetensors or .npz with every weight by name, instead of random ones; goes last\n";
        text += &format!("\nAsk for them as zoo:{}?{},...", network.name, network.settings[0]);
        text
    }

    fn json(&self) -> Value {
        let network = self.spec.network;
        let setting = |p: &Setting| {
            let text = p.to_string();
            let default = text.split_once('=').map_or("", |(_, d)| d);
            json!({ "name": p.name, "default": default, "doc": p.doc, "values": p.kind.to_string() })
        };
        json!({
            "name": network.name,
            "summary": network.summary,
            "source": network.source,
            "inputs": self.inputs(),
            "outputs": self.outputs(),
            "parameters": self.parameters,
            "flops": self.flops,
            "settings": network.settings.iter().map(setting).collect::<Vec<_>>(),
        })
    }
}

fn write(name: &str, output: &Path) -> CliResult {
    check_output(output, false)?;
    let spec = spec(name)?;
    let progress = Progress::start(format!("writing {}", output.display()));
    let loaded = load(&format!("zoo:{}", name.strip_prefix("zoo:").unwrap_or(name)), &LoadOptions::default())?;
    warn(&loaded.warnings);
    let model = export(&loaded.graph)
        .map_err(|diags| Failure::from(LoadError { diags, needed: vec![], input_names: vec![] }))?;
    write_file(&model, output).map_err(|e| Failure::usage(format!("{}: {e}", output.display())))?;
    drop(progress);
    say(format!("{}: {}, {}", output.display(), spec.network.name, size(model.bytes())))
}

fn write_file(model: &OnnxModel, path: &Path) -> std::io::Result<()> {
    let mut file = BufWriter::new(std::fs::File::create(path)?);
    model.write(&mut file)?;
    file.flush()
}
