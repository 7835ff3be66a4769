//! Networks built in code: [`Net`] is the builder, [`NETWORKS`] what is built with it. Weights are seeded, or loaded by name: the
//! same specification gives the same graph everywhere.
//!
//! ```
//! use lehr_frontends::zoo::Spec;
//!
//! let net = Spec::parse("resnet18?classes=10,input=32,width=0.25")?.build()?;
//! println!("{} parameters", net.parameters());
//! let graph = net.finish();
//! # Ok::<(), lehr_ir::Diag>(())
//! ```

mod alexnet;
mod build;
mod densenet;
pub mod harmonic;
mod hnet;
mod inception;
mod lenet5;
pub mod mlp;
mod mobilenet;
mod resnet;
mod settings;
mod siren;
mod squeezenet;
mod vgg;
mod weight_file;
mod weights;

pub use build::{BatchNorm, Built, Conv, Net, Pool, Value};
use lehr_ir::Diag;
pub use settings::{Args, Kind, Setting};
use std::path::{Path, PathBuf};
pub use weight_file::WeightFile;
pub use weights::{Init, Weights};

/// A network as it is listed.
#[derive(Debug)]
pub struct Network {
    pub name: &'static str,
    /// What it is, in a line.
    pub summary: &'static str,
    /// The paper.
    pub source: &'static str,
    pub settings: &'static [Setting],
    build: fn(&mut Net, &Args) -> Result<(), Diag>,
}

/// All networks, by name.
pub static NETWORKS: &[&Network] = &[
    &mlp::MLP,
    &lenet5::LENET5,
    &alexnet::ALEXNET,
    &vgg::VGG11,
    &vgg::VGG13,
    &vgg::VGG16,
    &vgg::VGG19,
    &vgg::BLURPOOL,
    &inception::NAIVE,
    &inception::V1,
    &resnet::RESNET18,
    &resnet::RESNET50,
    &resnet::SENET,
    &densenet::DENSENET121,
    &squeezenet::SQUEEZENET,
    &mobilenet::MOBILENET,
    &siren::SIREN,
    &hnet::HNET,
];

/// A setting that every network has, beside its own.
const SEED: Setting = Setting::size("seed", 1, 0, usize::MAX, "seed of the weights");

/// A network with its settings: `NAME?SETTING=VALUE,...`.
#[derive(Clone, Debug)]
pub struct Spec {
    pub network: &'static Network,
    args: Args,
    seed: u64,
    weights: Option<PathBuf>,
    text: String,
}

impl Spec {
    /// From `NAME`, or `NAME?SETTING=VALUE,...`, where an '&' will do for a comma. `weights=FILE` comes last: the file's name goes
    /// to the end of the text.
    pub fn parse(text: &str) -> Result<Spec, Diag> {
        let (name, settings) = text.split_once('?').unwrap_or((text, ""));
        let network = NETWORKS.iter().copied().find(|n| n.name == name).ok_or_else(|| {
            let names: Vec<&str> = NETWORKS.iter().map(|n| n.name).collect();
            Diag::new("load.zoo", format!("there is no network zoo:{name}"))
                .note(format!("there are: {}", names.join(", ")))
        })?;
        let mut spec =
            Spec { network, args: Args::new(network.settings), seed: 1, weights: None, text: format!("zoo:{text}") };
        spec.read(settings).map_err(|d| spec.explain(d))?;
        Ok(spec)
    }

    fn read(&mut self, mut settings: &str) -> Result<(), Diag> {
        while !settings.is_empty() {
            if let Some(path) = settings.strip_prefix("weights=") {
                self.weights = Some(PathBuf::from(path));
                return Ok(());
            }
            let (text, rest) = settings.split_once([',', '&']).unwrap_or((settings, ""));
            settings = rest;
            let Some((name, value)) = text.split_once('=') else {
                return Err(Diag::new("load.zoo", format!("'{text}' must look like SETTING=VALUE")));
            };
            if name == SEED.name {
                let seed = value.parse();
                self.seed =
                    seed.map_err(|_| Diag::new("load.zoo", format!("seed={value}: it must be a whole number")))?;
                continue;
            }
            let setting = self.network.settings.iter().find(|p| p.name == name);
            let unknown = || Diag::new("load.zoo", format!("{} has no setting {name}", self.network.name));
            self.args.set(setting.ok_or_else(unknown)?, value)?;
        }
        Ok(())
    }

    /// The network with its weights: noise, or the file's.
    pub fn build(&self) -> Result<Net, Diag> {
        let weights = match &self.weights {
            None => Weights::Seeded(self.seed),
            Some(path) => Weights::File(WeightFile::open(path)?),
        };
        self.build_with(weights)
    }

    /// The network with given weights; [`Weights::Zeros`] costs nothing.
    pub fn build_with(&self, weights: Weights) -> Result<Net, Diag> {
        let mut net = Net::new(self.network.name, weights);
        (self.network.build)(&mut net, &self.args).map_err(|d| self.explain(d))?;
        Ok(net)
    }

    /// The file of `weights=`.
    pub fn weights(&self) -> Option<&Path> {
        self.weights.as_deref()
    }

    /// Adds what was asked for and what there is.
    fn explain(&self, d: Diag) -> Diag {
        if d.code == weight_file::CODE {
            return d;
        }
        let settings: Vec<String> = self.network.settings.iter().map(Setting::to_string).collect();
        let listed = format!("settings of {} and their defaults: {}", self.network.name, settings.join(", "));
        let message = format!("{}: {}", self.text, d.message);
        let notes = d.notes.into_iter().chain([listed, "of all networks: seed=1, and last weights=FILE".into()]);
        Diag { location: d.location, code: "load.zoo", message, notes: notes.collect() }
    }
}

#[cfg(test)]
mod tests;
