//! Layers as a table for a terminal: what was chosen for each, its times, and what was rejected.

use super::choice::Choice;
use super::layers::Layer;
use super::units::ms;

/// Strategies of the chosen algorithm that are shown as rejected; of other algorithms one each.
const SHOWN: usize = 1;
/// Wider cells are cut.
const MOST: usize = 52;

/// A line for each layer, and one for each rejected way to compute it that says something new. `peak` is in GFLOP/s.
pub fn table(layers: &[&Layer], peak: Option<f64>) -> Vec<String> {
    let measured = layers.iter().any(|l| l.ms.is_some());
    let head = ["layer", "operator", "result", "computed", "predicted", "measured", "of peak"];
    let mut rows: Vec<Row> = vec![Row::Cells(head.map(String::from))];
    for l in layers {
        let strategy = l.choice.as_ref().map_or_else(|| l.layout.clone(), |c| c.strategy.clone());
        let tuned = if l.choice.as_ref().is_some_and(|c| c.tuned) { " (tuned)" } else { "" };
        let share = peak.zip(l.gflops()).map(|(peak, gflops)| format!("{:.0} %", 100.0 * gflops / peak));
        // What is not known is a blank.
        rows.push(Row::Cells([
            cut(l.nodes.first().map_or("", String::as_str)),
            l.op.clone(),
            l.result.clone(),
            cut(&format!("{strategy}{tuned}")),
            l.predicted_ms.map(ms).unwrap_or_default(),
            l.ms.map(ms).unwrap_or_default(),
            share.unwrap_or_default(),
        ]));
        rows.extend(l.choice.iter().flat_map(rejections).map(Row::Line));
    }
    let columns = if measured { head.len() } else { head.len() - 2 };
    let widths: Vec<usize> = (0..columns).map(|c| rows.iter().map(|r| r.width(c)).max().unwrap_or(0)).collect();
    rows.iter().map(|r| r.text(&widths)).collect()
}

enum Row {
    Cells([String; 7]),
    Line(String),
}

impl Row {
    fn width(&self, column: usize) -> usize {
        match self {
            Row::Cells(cells) => cells[column].chars().count(),
            Row::Line(_) => 0,
        }
    }

    fn text(&self, widths: &[usize]) -> String {
        let cells = match self {
            Row::Line(line) => return format!("    {line}"),
            Row::Cells(cells) => cells,
        };
        // Numbers end where their column ends.
        let cell = |(c, w): (usize, &usize)| {
            if c < 4 { format!("{:<w$}", cells[c]) } else { format!("{:>w$}", cells[c]) }
        };
        widths.iter().enumerate().map(cell).collect::<Vec<_>>().join("  ").trim_end().to_string()
    }
}

/// What was tuned and is not used, then the best rejected strategies of the chosen algorithm, and of each other algorithm the best.
pub(super) fn rejections(choice: &Choice) -> Vec<String> {
    let own = Choice::algorithm(&choice.strategy);
    let mut seen: Vec<&str> = vec![];
    let mut lines: Vec<String> = choice.unfit.iter().map(|u| format!("not as tuned, {u}")).collect();
    let said = lines.len();
    for r in &choice.rejected {
        let algorithm = Choice::algorithm(&r.strategy);
        let known = seen.iter().filter(|a| **a == algorithm).count();
        if known < (if algorithm == own { SHOWN } else { 1 }) {
            lines.push(format!("not {}: {}, {}", r.strategy, ms(r.predicted_ms), r.reason));
        }
        seen.push(algorithm);
    }
    let rest = choice.rejected.len() - (lines.len() - said);
    if rest > 0 {
        lines.push(format!("and {rest} other ways to cut it (--json)"));
    }
    lines
}

fn cut(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c });
    match text.chars().count() {
        n if n <= MOST => plain.collect(),
        // The ends of names differ.
        n => format!("…{}", plain.skip(n - MOST + 1).collect::<String>()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::choice::Rejected;
    use super::super::layers::Amount;
    use super::*;

    fn layer(name: &str) -> Layer {
        Layer {
            op: "conv_relu".into(),
            nodes: vec![name.into()],
            result: "f32[1,64,56,56]".into(),
            params: 1,
            flops: Amount::Number(200_000_000),
            activation_bytes: Amount::Number(1),
            layout: "convolution".into(),
            leaves: vec![],
            schedules: vec![],
            choice: None,
            predicted_ms: Some(1.5),
            ms: None,
        }
    }

    #[test]
    fn columns_are_aligned_and_one_rejection_of_each_algorithm_is_shown() {
        let mut first = layer("a");
        first.ms = Some(2.0);
        let rejected = |strategy: &str, predicted_ms: f64| Rejected {
            strategy: strategy.into(),
            predicted_ms,
            reason: format!("because of {predicted_ms}"),
        };
        first.choice = Some(Choice {
            signature: "s".into(),
            strategy: "direct tile=14x2".into(),
            tuned: true,
            unfit: Some("direct tile=28x9: why".into()),
            rejected: vec![
                rejected("direct tile=9x3", 1.6),
                rejected("direct tile=6x4", 1.7),
                rejected("F(2x2,3x3)", 3.0),
            ],
        });
        let second = layer("b/a_longer\u{1b}name");
        let lines = table(&[&first, &second], Some(200.0));
        assert_eq!(
            lines,
            [
                "layer            operator   result           computed                  predicted  measured  of peak",
                "a                conv_relu  f32[1,64,56,56]  direct tile=14x2 (tuned)   1.500 ms  2.000 ms     50 %",
                "    not as tuned, direct tile=28x9: why",
                "    not direct tile=9x3: 1.600 ms, because of 1.6",
                "    not F(2x2,3x3): 3.000 ms, because of 3",
                "    and 1 other ways to cut it (--json)",
                "b/a_longer\u{fffd}name  conv_relu  f32[1,64,56,56]  convolution                1.500 ms",
            ]
        );
        assert!(!table(&[&second], None)[0].contains("measured"));
    }
}
