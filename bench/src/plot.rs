//! Horizontal bars as SVG.

use std::fmt::Write;

use crate::figures::{Series, whole};

/// How values become lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Bars from 0.
    Linear,
    /// Points on a logarithmic axis: a bar's length would mean nothing there.
    Logarithmic,
}

/// One value and its range.
#[derive(Clone, Debug)]
pub struct Bar {
    pub label: String,
    pub value: f64,
    pub least: f64,
    pub most: f64,
    /// How the value is written.
    pub text: String,
}

impl Bar {
    pub fn of(label: &str, series: &Series, text: String) -> Self {
        Self { label: label.into(), value: series.median(), least: series.least(), most: series.most(), text }
    }
}

/// Bars on a common axis.
#[derive(Clone, Debug)]
pub struct Panel {
    pub title: String,
    pub unit: String,
    pub scale: Scale,
    pub bars: Vec<Bar>,
}

const WIDTH: f64 = 900.0;
/// Where the axis begins and ends; labels stand before, values may stand after.
const LEFT: f64 = 230.0;
const RIGHT: f64 = 780.0;
const BAR: f64 = 20.0;
const STEP: f64 = 30.0;
/// Of a panel without its bars.
const AROUND: f64 = 92.0;
const TOP: f64 = 46.0;

/// A self-contained drawing.
pub fn svg(title: &str, panels: &[&Panel]) -> String {
    let height = TOP + panels.iter().map(|panel| AROUND + STEP * panel.bars.len() as f64).sum::<f64>();
    let mut out = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="13" fill="#222">
<rect width="100%" height="100%" fill="#fff"/>
<text x="20" y="30" font-size="18" font-weight="bold">{}</text>
"##,
        escape(title)
    );
    let mut y = TOP;
    for panel in panels {
        draw(&mut out, panel, y);
        y += AROUND + STEP * panel.bars.len() as f64;
    }
    out.push_str("</svg>\n");
    out
}

fn draw(out: &mut String, panel: &Panel, top: f64) {
    let axis = Axis::of(panel);
    let (first, last) = (top + 34.0, top + 34.0 + STEP * panel.bars.len() as f64);
    line(
        out,
        &format!(
            r#"<text x="20" y="{:.0}" font-size="15" font-weight="bold">{}</text>"#,
            top + 20.0,
            escape(&panel.title)
        ),
    );
    for (value, text) in axis.ticks() {
        let x = axis.place(value);
        line(out, &format!(r##"<path d="M{x:.1} {first:.1}V{last:.1}" stroke="#ddd"/>"##));
        line(
            out,
            &format!(r#"<text x="{x:.1}" y="{:.1}" text-anchor="middle" font-size="11">{text}</text>"#, last + 15.0),
        );
    }
    let middle = (LEFT + RIGHT) / 2.0;
    line(
        out,
        &format!(
            r##"<text x="{middle:.0}" y="{:.1}" text-anchor="middle" font-size="11" fill="#666">{}</text>"##,
            last + 31.0,
            escape(&panel.unit)
        ),
    );
    for (number, bar) in panel.bars.iter().enumerate() {
        draw_bar(out, &axis, bar, first + STEP * number as f64 + STEP / 2.0);
    }
}

fn draw_bar(out: &mut String, axis: &Axis, bar: &Bar, y: f64) {
    let (x, least, most) = (axis.place(bar.value), axis.place(bar.least), axis.place(bar.most));
    line(
        out,
        &format!(r#"<text x="{:.0}" y="{:.1}" text-anchor="end">{}</text>"#, LEFT - 10.0, y + 4.5, escape(&bar.label)),
    );
    match axis.scale {
        Scale::Linear => {
            let (width, upper) = (x - LEFT, y - BAR / 2.0);
            line(
                out,
                &format!(r##"<rect x="{LEFT}" y="{upper:.1}" width="{width:.1}" height="{BAR}" fill="#4c8bb8"/>"##),
            );
        }
        Scale::Logarithmic => {
            line(out, &format!(r##"<circle cx="{x:.1}" cy="{y:.1}" r="6" fill="#4c8bb8"/>"##));
        }
    }
    if most - least > 0.5 {
        let (upper, lower) = (y - 5.0, y + 5.0);
        line(
            out,
            &format!(
                r##"<path d="M{least:.1} {y:.1}H{most:.1}M{least:.1} {upper:.1}V{lower:.1}M{most:.1} {upper:.1}V{lower:.1}" stroke="#222" fill="none"/>"##
            ),
        );
    }
    let text = x.max(most) + 11.0;
    line(out, &format!(r#"<text x="{text:.1}" y="{:.1}" font-weight="bold">{}</text>"#, y + 4.5, escape(&bar.text)));
}

struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
    /// Distance of ticks on a linear axis.
    step: f64,
}

impl Axis {
    fn of(panel: &Panel) -> Self {
        let values = || panel.bars.iter().flat_map(|bar| [bar.least, bar.value, bar.most]);
        let most = values().fold(0.0, f64::max).max(1e-3);
        match panel.scale {
            Scale::Linear => {
                let step = nice_step(most / 5.0);
                Self { scale: Scale::Linear, low: 0.0, high: (most / step).ceil() * step, step }
            }
            Scale::Logarithmic => {
                let least = values().filter(|value| *value > 0.0).fold(most, f64::min).max(most / 1e5);
                let low = 10_f64.powf(least.log10().floor());
                let high = 10_f64.powf(most.log10().ceil());
                Self { scale: Scale::Logarithmic, low, high: high.max(low * 10.0), step: 0.0 }
            }
        }
    }

    /// What is off the axis stands at its end.
    fn place(&self, value: f64) -> f64 {
        let share = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Logarithmic => (value.max(self.low) / self.low).log10() / (self.high / self.low).log10(),
        };
        LEFT + share.clamp(0.0, 1.0) * (RIGHT - LEFT)
    }

    fn ticks(&self) -> Vec<(f64, String)> {
        let mut ticks = Vec::new();
        let mut value = self.low;
        while value <= self.high * 1.0001 {
            let text = if value == 0.0 || self.high >= 10.0 && value >= 1.0 { whole(value) } else { short(value) };
            ticks.push((value, text));
            value = match self.scale {
                Scale::Linear => value + self.step,
                Scale::Logarithmic => value * 10.0,
            };
        }
        ticks
    }
}

/// The smallest of 1, 2, 5, 10, … that is not below `least`.
pub(crate) fn nice_step(least: f64) -> f64 {
    let decade = 10_f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0].into_iter().map(|factor| factor * decade).find(|step| *step >= least).unwrap_or(10.0 * decade)
}

/// Up to four decimals.
pub(crate) fn short(value: f64) -> String {
    format!("{value:.4}").trim_end_matches('0').trim_end_matches('.').to_owned()
}

pub(crate) fn line(out: &mut String, text: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(out, "{text}");
}

pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round() {
        assert_eq!((nice_step(0.9), nice_step(13_000.0), nice_step(51.0)), (1.0, 20_000.0, 100.0));
    }

    #[test]
    fn everything_stands_on_its_axis() {
        for scale in [Scale::Linear, Scale::Logarithmic] {
            let bar =
                |value: f64| Bar { label: "a<b".into(), value, least: -1.0, most: value * 2.0, text: short(value) };
            let panel =
                Panel { title: "t".into(), unit: "u".into(), scale, bars: vec![bar(0.0), bar(0.4), bar(1234.0)] };
            let axis = Axis::of(&panel);
            for value in [-1.0, 0.0, 0.4, 2468.0] {
                assert!((LEFT..=RIGHT).contains(&axis.place(value)), "{scale:?} {value}");
            }
            let drawing = svg("title", &[&panel]);
            assert!(drawing.contains("a&lt;b") && !drawing.contains("NaN"), "{drawing}");
        }
    }
}
