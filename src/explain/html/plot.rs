//! A curve of errors as a plot: the error on a logarithmic axis against the size of the replacement. Where the replacement would
//! cost more than what it replaces, the ground is shaded.

use super::escape::escape;
use crate::explain::units::count;
use crate::explain::{Curve, Point};
use std::fmt::{Result, Write};

const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 38.0;
/// Smaller errors are rounding: they are drawn on the axis, and do not stretch it.
const ROUNDING: f64 = 1e-6;

pub fn figure(out: &mut String, curve: &Curve) -> Result {
    let points: Vec<Point> = curve.points.iter().copied().filter(|p| p.error.is_finite()).collect();
    if points.is_empty() {
        return Ok(());
    }
    let axes = Axes::of(&points);
    writeln!(out, "<figure class=\"plot\"><figcaption>{}</figcaption>", escape(&curve.title))?;
    writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
        escape(&curve.title)
    )?;
    shade(out, curve, &points, &axes)?;
    grid(out, &axes, &curve.axis)?;
    let line: Vec<String> =
        points.iter().map(|p| format!("{:.1},{:.1}", axes.x(p.at as f64), axes.y(p.error))).collect();
    writeln!(out, "<polyline class=\"line\" points=\"{}\"/>", line.join(" "))?;
    for p in &points {
        let (x, y) = (axes.x(p.at as f64), axes.y(p.error));
        let class = if curve.chosen == p.at { "dot chosen" } else { "dot" };
        let radius = if curve.chosen == p.at { 5.0 } else { 3.5 };
        let text = format!(
            "{} {}: relative error {:.3e}\n{} parameters, {} multiply-adds, {:.2} of before",
            curve.axis,
            p.at,
            p.error,
            count(p.parameters),
            count(p.multiply_adds),
            curve.cost(p)
        );
        writeln!(
            out,
            "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\"><title>{}</title></circle>",
            escape(&text)
        )?;
    }
    writeln!(out, "</svg>\n<ul>")?;
    for finding in &curve.findings {
        writeln!(out, "<li>{}</li>", escape(finding))?;
    }
    writeln!(out, "</ul></figure>")
}

struct Axes {
    from: f64,
    to: f64,
    /// Powers of ten.
    low: i32,
    high: i32,
}

impl Axes {
    fn of(points: &[Point]) -> Axes {
        let fold = |f: fn(f64, f64) -> f64, of: fn(&Point) -> f64, start| points.iter().map(of).fold(start, f);
        let (from, to) =
            (fold(f64::min, |p| p.at as f64, f64::INFINITY), fold(f64::max, |p| p.at as f64, f64::NEG_INFINITY));
        let real = |p: &&Point| p.error > ROUNDING;
        let least = points.iter().filter(real).map(|p| p.error).fold(1.0, f64::min);
        let most = points.iter().filter(real).map(|p| p.error).fold(least, f64::max);
        let low = least.log10().floor() as i32;
        let high = (most.log10().ceil() as i32).max(low + 1);
        // One point alone stands in the middle.
        let (from, to) = if from < to { (from, to) } else { (from - 1.0, to + 1.0) };
        Axes { from, to, low, high }
    }

    fn x(&self, at: f64) -> f64 {
        LEFT + 6.0 + (at - self.from) / (self.to - self.from) * (WIDTH - LEFT - RIGHT - 12.0)
    }

    fn y(&self, error: f64) -> f64 {
        let lowest = f64::from(self.low);
        let share = (error.max(10f64.powf(lowest)).log10() - lowest) / f64::from(self.high - self.low);
        HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
    }
}

/// From the first point that costs as much as the original on.
fn shade(out: &mut String, curve: &Curve, points: &[Point], axes: &Axes) -> Result {
    let Some(first) = points.iter().find(|p| p.multiply_adds >= curve.multiply_adds) else { return Ok(()) };
    let (x, end) = (axes.x(first.at as f64) - 6.0, WIDTH - RIGHT);
    writeln!(
        out,
        "<rect class=\"dear\" x=\"{x:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{:.1}\"><title>no cheaper than the layer</title></rect>",
        end - x,
        HEIGHT - TOP - BOTTOM
    )?;
    if end - x > 90.0 {
        writeln!(out, "<text class=\"tick end\" x=\"{:.1}\" y=\"{:.1}\">no cheaper</text>", end - 6.0, TOP + 14.0)?;
    }
    Ok(())
}

fn grid(out: &mut String, axes: &Axes, name: &str) -> Result {
    let decades = axes.high - axes.low;
    let step = (f64::from(decades) / 5.0).ceil().max(1.0) as i32;
    for power in (axes.low..=axes.high).step_by(step as usize) {
        // Few decades have room for lines in between.
        let parts: &[f64] = if decades <= 2 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        for part in parts.iter().filter(|&&part| power < axes.high || part == 1.0) {
            let error = part * 10f64.powi(power);
            let y = axes.y(error);
            writeln!(out, "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{}\"/>", WIDTH - RIGHT)?;
            let text = if power >= -3 { format!("{error:.*}", -power.min(0) as usize) } else { format!("{error:.0e}") };
            writeln!(out, "<text class=\"tick end\" x=\"{}\" y=\"{:.1}\">{text}</text>", LEFT - 6.0, y + 4.0)?;
        }
    }
    let base = HEIGHT - BOTTOM;
    writeln!(out, "<path class=\"axis\" d=\"M{LEFT} {base}H{}\"/>", WIDTH - RIGHT)?;
    for at in ticks(axes.from, axes.to) {
        let x = axes.x(at);
        writeln!(out, "<path class=\"axis\" d=\"M{x:.1} {base}v4\"/>")?;
        writeln!(out, "<text class=\"tick middle\" x=\"{x:.1}\" y=\"{:.1}\">{at}</text>", base + 16.0)?;
    }
    let middle = (LEFT + WIDTH - RIGHT) / 2.0;
    writeln!(out, "<text class=\"label middle\" x=\"{middle:.1}\" y=\"{:.1}\">{}</text>", HEIGHT - 6.0, escape(name))?;
    writeln!(
        out,
        "<text class=\"label middle\" transform=\"translate(12 {:.1}) rotate(-90)\">relative error</text>",
        (TOP + base) / 2.0
    )
}

/// Some four to eight round numbers of a range.
fn ticks(from: f64, to: f64) -> Vec<f64> {
    let raw = (to - from) / 6.0;
    let magnitude = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * magnitude).find(|s| *s >= raw).unwrap_or(raw);
    // Sizes are whole.
    let step = step.max(1.0);
    let first = (from / step).ceil();
    let count = ((to - first * step) / step).floor().max(0.0) as usize;
    (0..=count).map(|k| (first + k as f64) * step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(ticks(1.0, 5.0), [1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(ticks(0.0, 128.0), [0.0, 50.0, 100.0]);
        assert_eq!(ticks(3.0, 5.0), [3.0, 4.0, 5.0]);
    }

    #[test]
    fn errors_keep_their_order_on_the_axis() {
        let point = |at, error| Point { at, error, parameters: 0, multiply_adds: 0 };
        let axes = Axes::of(&[point(1, 0.5), point(2, 0.02), point(5, 0.0)]);
        assert!(axes.y(0.5) < axes.y(0.02) && axes.y(0.02) < axes.y(0.0) && axes.y(0.0) <= HEIGHT - BOTTOM + 1e-9);
        assert_eq!((axes.low, axes.high), (-2, 0));
        let exact = Axes::of(&[point(1, 0.0)]);
        assert_eq!((exact.y(0.0), exact.x(1.0)), (HEIGHT - BOTTOM, (LEFT + WIDTH - RIGHT) / 2.0));
        assert!(axes.x(1.0) < axes.x(5.0) && axes.y(0.5) >= TOP - 1e-9);
    }
}
