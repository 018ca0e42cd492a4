//! Lines over time as SVG.

use crate::plot::{escape, line, nice_step, short};

/// One quantity over time.
#[derive(Clone, Debug)]
pub struct Line {
    pub label: String,
    /// Seconds and values.
    pub points: Vec<(f64, f64)>,
}

/// Lines on common axes.
#[derive(Clone, Debug)]
pub struct Chart {
    pub title: String,
    pub lines: Vec<Line>,
}

const WIDTH: f64 = 900.0;
const LEFT: f64 = 90.0;
/// Labels stand behind the lines.
const RIGHT: f64 = 720.0;
const PLOT: f64 = 150.0;
const STEP: f64 = 225.0;
const TOP: f64 = 46.0;
const COLOURS: [&str; 8] = ["#4c8bb8", "#d1605e", "#6a9f58", "#e49444", "#855c8d", "#967662", "#3c9d9b", "#a0a0a0"];

/// A self-contained drawing, one chart below the other.
pub fn svg(title: &str, charts: &[Chart]) -> String {
    let height = TOP + STEP * charts.len() as f64;
    let mut out = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12" fill="#222">
<rect width="100%" height="100%" fill="#fff"/>
<text x="20" y="30" font-size="18" font-weight="bold">{}</text>
"##,
        escape(title)
    );
    for (number, chart) in charts.iter().enumerate() {
        draw(&mut out, chart, TOP + STEP * number as f64);
    }
    out.push_str("</svg>\n");
    out
}

/// The greatest of some values, or a little.
fn most(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(1e-3, f64::max)
}

fn draw(out: &mut String, chart: &Chart, top: f64) {
    let points = || chart.lines.iter().flat_map(|line| &line.points);
    let (last, most) = (most(points().map(|point| point.0)), most(points().map(|point| point.1)));
    let step = nice_step(most / 4.0);
    let high = (most / step).ceil() * step;
    let (upper, lower) = (top + 30.0, top + 30.0 + PLOT);
    let x = |seconds: f64| LEFT + seconds / last * (RIGHT - LEFT);
    let y = |value: f64| lower - (value / high).clamp(0.0, 1.0) * PLOT;
    line(
        out,
        &format!(
            r#"<text x="20" y="{:.0}" font-size="14" font-weight="bold">{}</text>"#,
            top + 18.0,
            escape(&chart.title)
        ),
    );
    let mut tick = 0.0;
    while tick <= high * 1.0001 {
        let place = y(tick);
        line(out, &format!(r##"<path d="M{LEFT} {place:.1}H{RIGHT}" stroke="#ddd"/>"##));
        line(
            out,
            &format!(r#"<text x="{:.0}" y="{:.1}" text-anchor="end">{}</text>"#, LEFT - 6.0, place + 4.0, short(tick)),
        );
        tick += step;
    }
    let end = format!("{last:.0} s");
    line(out, &format!(r#"<text x="{RIGHT}" y="{:.1}" text-anchor="end">{end}</text>"#, lower + 16.0));
    for (number, one) in chart.lines.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let path: Vec<String> =
            one.points.iter().map(|(at, value)| format!("{:.1},{:.1}", x(*at), y(*value))).collect();
        line(out, &format!(r#"<polyline points="{}" fill="none" stroke="{colour}"/>"#, path.join(" ")));
        let place = upper + 14.0 * number as f64 + 8.0;
        let label = escape(&one.label);
        line(out, &format!(r#"<text x="{:.0}" y="{place:.1}" fill="{colour}">{label}</text>"#, RIGHT + 10.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_drawn_within_its_axes() {
        let points = vec![(0.0, 0.0), (1.0, 3.0), (2.0, 1e9)];
        let lines = vec![Line { label: "a<b".into(), points }, Line { label: "none".into(), points: Vec::new() }];
        let drawing = svg("title", &[Chart { title: "t".into(), lines }]);
        assert!(drawing.contains("a&lt;b") && !drawing.contains("NaN") && !drawing.contains("inf"), "{drawing}");
        assert!(drawing.contains(&format!("{LEFT:.1},{:.1} ", TOP + 30.0 + PLOT)), "{drawing}");
    }
}
