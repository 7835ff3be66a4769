//! `lehr check`: everything that is wrong, at once.

use super::args::CheckArgs;
use super::progress::Progress;
use super::{CliResult, Failure, exit_code, say};
use crate::{CompileOptions, load, lower};
use lehr_ir::{Diag, Location};
use serde_json::{Value, json};

pub fn run(args: &CheckArgs) -> CliResult {
    let progress = Progress::start("checking");
    let (diags, warnings) = match load(&args.model.model, &args.model.load_options()?) {
        Err(e) => (e.diags, vec![]),
        Ok(loaded) => {
            let mut diags = lehr_ir::verify::verify(&loaded.graph);
            if diags.is_empty() {
                diags = match lower(loaded.graph, &CompileOptions::default()) {
                    Ok(_) => vec![],
                    Err(e) => e.0,
                };
            }
            (diags, loaded.warnings)
        }
    };
    drop(progress);
    if args.json {
        let list = |d: &[Diag]| d.iter().map(to_json).collect::<Vec<_>>();
        say(json!({ "errors": list(&diags), "warnings": list(&warnings) }))?;
    } else {
        for d in &diags {
            say(format!("error: {d}"))?;
        }
        for d in &warnings {
            say(format!("warning: {d}"))?;
        }
        match diags.len() {
            0 => say(format!("{}: no problems", args.model.model))?,
            n => say(format!("{}: {n} problem{}", args.model.model, if n == 1 { "" } else { "s" }))?,
        }
    }
    if diags.is_empty() { Ok(()) } else { Err(Failure::silent(exit_code(&diags))) }
}

fn to_json(d: &Diag) -> Value {
    let location = match &d.location {
        Location::Model => json!({}),
        Location::Node { name, index, op } => json!({ "node": **name, "index": index, "op": **op }),
        Location::Value { name } => json!({ "value": **name }),
        Location::Line { line } => json!({ "line": line }),
    };
    json!({ "code": d.code, "message": d.message, "notes": d.notes, "location": location })
}
