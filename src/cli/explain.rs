//! `lehr explain`: what every pass did or declined on each layer, as text, json or a page.

use super::args::{ExplainArgs, ExplainFormat};
use super::compile::{check_output, write};
use super::progress::Progress;
use super::{CliResult, Failure, say, warn};
use crate::explain::{ExplainOptions, Measure, explain, html, text};
use crate::load;
use lehr_passes::analysis::Options;
use std::path::Path;

/// Multiply-adds that the search for a factorisation may spend on each layer of a model.
const WHOLE_MODEL_WORK: f64 = 2e9;

pub fn run(args: &ExplainArgs) -> CliResult {
    let file = args.output.as_deref().filter(|path| *path != Path::new("-"));
    file.map_or(Ok(()), |path| check_output(path, false))?;
    // Whole models are searched less deeply than the layers that someone asks for.
    let compile = args.code.options()?;
    let defaults = Options::default();
    let tolerance = compile.approximate.unwrap_or(defaults.tolerance);
    let work = if args.node.is_some() { defaults.work } else { WHOLE_MODEL_WORK };
    let options = ExplainOptions {
        compile,
        node: args.node.clone(),
        analyses: (!args.no_analyses).then_some(Options { tolerance, work, ..defaults }),
        measure: args.measure.then_some(Measure { threads: args.threads, seconds: args.seconds }),
    };
    let progress = Progress::start(format!("explaining {}", args.model.model));
    let loaded = load(&args.model.model, &args.model.load_options()?)?;
    warn(&loaded.warnings);
    let explanation = explain(loaded.graph, &options)?;
    let rendered = match format(args) {
        ExplainFormat::Text => text::render(&explanation),
        ExplainFormat::Json => {
            serde_json::to_string_pretty(&explanation).map_err(|e| Failure::model(e.to_string()))? + "\n"
        }
        ExplainFormat::Html => html::render(&explanation),
    };
    drop(progress);
    match file {
        None => say(rendered.trim_end()),
        Some(path) => write(path, rendered.as_bytes()),
    }
}

/// As asked for, else by the ending of the output's name.
fn format(args: &ExplainArgs) -> ExplainFormat {
    let ending = args.output.as_deref().and_then(Path::extension).and_then(|e| e.to_str());
    args.format.unwrap_or(match ending {
        Some("html" | "htm") => ExplainFormat::Html,
        Some("json") => ExplainFormat::Json,
        _ => ExplainFormat::Text,
    })
}
