//! What is drawn, and what keys change about it. States are words as well as colours: nothing is lost without colours.

use std::time::Duration;

use ratatui::Frame;
use ratatui::crossterm::event::KeyCode;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Clear, Paragraph, Row, Table};
use serde_json::Value;

use super::sample::{History, Rows};
use super::sections::{self, Column, Kind, Order, SECTIONS, Section};

const KEYS: &str = " q quit   h help   s sort   r reverse   Tab section   ↑↓ scroll   Space hold";
const HELP: [&str; 10] = [
    "q Esc    quit",
    "h ?      this help; any key leaves it",
    "s        sort by the next of name, rate, pending, oldest",
    "r        the other way round",
    "Tab      go to the next section",
    "↑ ↓ k j  scroll in it, PgUp PgDn by ten",
    "Space    hold, and go on",
    "",
    "Rates are of the time between two looks. OLDEST: how",
    "long the oldest event or message has been waiting.",
];

pub struct Screen {
    interval: Duration,
    colours: bool,
    held: bool,
    help: bool,
    order: Order,
    reversed: bool,
    /// The section in which is scrolled.
    focus: usize,
    /// For each section the rows that are above what is seen.
    above: [usize; SECTIONS.len()],
}

impl Screen {
    pub fn new(interval: Duration, colours: bool) -> Self {
        let above = [0; SECTIONS.len()];
        Self { interval, colours, held: false, help: false, order: Order::Name, reversed: false, focus: 0, above }
    }

    pub fn is_held(&self) -> bool {
        self.held
    }

    /// Whether that was the end.
    pub fn press(&mut self, key: KeyCode) -> bool {
        if std::mem::take(&mut self.help) {
            return key == KeyCode::Char('q');
        }
        let above = &mut self.above[self.focus];
        match key {
            KeyCode::Char('q') | KeyCode::Esc => return true,
            KeyCode::Char('h' | '?') => self.help = true,
            KeyCode::Char('s') => self.order = self.order.next(),
            KeyCode::Char('r') => self.reversed = !self.reversed,
            KeyCode::Char(' ') => self.held = !self.held,
            KeyCode::Tab => self.focus = (self.focus + 1) % SECTIONS.len(),
            KeyCode::Down | KeyCode::Char('j') => *above += 1,
            KeyCode::Up | KeyCode::Char('k') => *above = above.saturating_sub(1),
            KeyCode::PageDown => *above += 10,
            KeyCode::PageUp => *above = above.saturating_sub(10),
            _ => {}
        }
        false
    }

    pub fn draw(&mut self, frame: &mut Frame, history: &History) {
        let problems = history.now.problems.as_ref().map_or(1, Vec::len).min(5);
        let lines = |count: usize| Constraint::Length(u16::try_from(count).unwrap_or(u16::MAX));
        let [head, middle, wrong, foot] = Layout::vertical([
            lines(2),
            Constraint::Min(0),
            lines(if problems > 0 { problems + 1 } else { 0 }),
            lines(1),
        ])
        .areas(frame.area());
        frame.render_widget(Paragraph::new(self.summary(&history.now.summary)), head);
        let rows: Vec<Rows> = (0..SECTIONS.len()).map(|place| history.rows(place)).collect();
        let wanted: Vec<usize> = rows.iter().map(|rows| rows.as_ref().map_or(1, Vec::len) + 2).collect();
        let mut top = middle.y;
        for ((place, rows), height) in rows.into_iter().enumerate().zip(shares(&wanted, middle.height.into())) {
            let height = u16::try_from(height).unwrap_or(u16::MAX).min(middle.bottom().saturating_sub(top));
            self.draw_section(frame, place, rows, Rect { y: top, height, ..middle });
            top += height;
        }
        self.draw_problems(frame, &history.now.problems, wrong);
        let keys = if self.held { format!("{KEYS}   HELD") } else { KEYS.to_owned() };
        frame.render_widget(Paragraph::new(keys).style(Style::new().add_modifier(Modifier::REVERSED)), foot);
        if self.help {
            draw_help(frame);
        }
    }

    fn summary(&self, row: &Value) -> Vec<Line<'static>> {
        let text = |name: &str| row[name].as_str().unwrap_or("-").to_owned();
        let count = |name: &str| sections::cell(Kind::Count, &row[name]);
        let state = match (row["ok"].as_bool(), row["problems"].as_i64()) {
            (Some(true), _) => Span::styled("all is well", self.tinted(Color::Green)),
            (_, Some(1)) => Span::styled("1 problem", self.wrong()),
            (_, many) => Span::styled(format!("{} problems", many.unwrap_or_default()), self.wrong()),
        };
        let first = vec![
            Span::styled("sea-mq top", Style::new().add_modifier(Modifier::BOLD)),
            format!(
                "  {} as {}  {} UTC, every {} s  ",
                text("database"),
                text("role"),
                text("time"),
                self.interval.as_secs()
            )
            .into(),
            state,
        ];
        let order = if self.reversed { " reversed" } else { "" };
        let second = format!(
            "relay {}  pending {}  oldest {}  dead letters {}  log {} MiB  by {}{order}",
            text("relay"),
            count("pending"),
            sections::cell(Kind::Seconds, &row["oldest"]),
            count("dead_letters"),
            sections::cell(Kind::Count, &(row["log_bytes"].as_f64().unwrap_or_default() / f64::from(1 << 20)).into()),
            self.order.word(),
        );
        vec![first.into(), second.into()]
    }

    fn draw_section(&mut self, frame: &mut Frame, place: usize, rows: Rows, area: Rect) {
        let section = &SECTIONS[place];
        let mut rows = match rows {
            Ok(rows) => rows,
            Err(error) => {
                let told = format!("{}: {}", section.title, error.lines().next().unwrap_or_default());
                frame.render_widget(Paragraph::new(told).style(self.tinted(Color::Yellow)), area);
                return;
            }
        };
        sections::sort(section, &mut rows, self.order, self.reversed);
        let seen = usize::from(area.height.saturating_sub(2));
        self.above[place] = self.above[place].min(rows.len().saturating_sub(seen));
        let above = self.above[place];
        let columns = fitting(section, area.width.into());
        let shown = rows.iter().skip(above).take(seen).map(|row| self.row(section, columns, row));
        let widths = columns.iter().enumerate().map(|(at, _)| match at {
            0 => Constraint::Fill(1),
            _ => Constraint::Length(WIDTH as u16),
        });
        let head = self.head(place, columns, rows.len(), above);
        let table = Table::new(shown, widths.collect::<Vec<_>>()).column_spacing(1).header(head);
        frame.render_widget(table, area);
    }

    /// Bold, and the section in which is scrolled marked; how many rows there are when not all are seen.
    fn head(&self, place: usize, columns: &[Column], count: usize, above: usize) -> Row<'static> {
        let section = &SECTIONS[place];
        let mark = if place == self.focus { "▸" } else { " " };
        let from = if above > 0 { format!(" from {}", above + 1) } else { String::new() };
        let title = format!("{mark}{} ({count}){from}", section.title);
        let cells = columns.iter().enumerate().map(|(at, column)| match at {
            0 => Cell::from(title.clone()),
            _ => Cell::from(aligned(column.kind, column.head.to_owned())),
        });
        Row::new(cells.collect::<Vec<_>>()).style(Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED))
    }

    fn row(&self, section: &Section, columns: &[Column], row: &Value) -> Row<'static> {
        let well = |state: &Value| section.well.iter().any(|word| *state == **word);
        let cells = columns.iter().enumerate().map(|(at, column)| {
            let value = &row[column.name];
            let text = sections::cell(column.kind, value);
            let text = if at == 0 { format!(" {text}") } else { text };
            let style = if at == 1 && !well(value) { self.wrong() } else { Style::new() };
            Cell::from(aligned(column.kind, text).style(style))
        });
        Row::new(cells.collect::<Vec<_>>())
    }

    fn draw_problems(&self, frame: &mut Frame, problems: &Rows, area: Rect) {
        let lines: Vec<Line> = match problems {
            Err(error) => vec![format!(" {}", error.lines().next().unwrap_or_default()).into()],
            Ok(rows) => rows
                .iter()
                .map(|row| {
                    let text = |name: &str| row[name].as_str().unwrap_or_default().replace('\n', " ");
                    Line::from(vec![
                        Span::styled(format!(" {} {}", row["rank"], text("problem")), self.wrong()),
                        format!("  {}", text("hint")).into(),
                    ])
                })
                .collect(),
        };
        let title = Line::styled(" PROBLEMS", Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED));
        frame.render_widget(Paragraph::new([vec![title], lines].concat()), area);
    }

    fn tinted(&self, colour: Color) -> Style {
        if self.colours { Style::new().fg(colour) } else { Style::new() }
    }

    /// Bold as well, so that it is seen without colours.
    fn wrong(&self) -> Style {
        self.tinted(Color::Red).add_modifier(Modifier::BOLD)
    }
}

/// Of each column but the first, and of the first at least.
const WIDTH: usize = 9;
const NAME: usize = 20;

/// The columns that leave room for the names; the last ones go first.
fn fitting(section: &Section, width: usize) -> &'static [Column] {
    let count = 1 + width.saturating_sub(NAME) / (WIDTH + 1);
    &section.columns[..count.clamp(2, section.columns.len())]
}

fn aligned(kind: Kind, text: String) -> Line<'static> {
    Line::from(text).alignment(if kind == Kind::Text { Alignment::Left } else { Alignment::Right })
}

fn draw_help(frame: &mut Frame) {
    let whole = frame.area();
    let (width, height) = (58.min(whole.width), (HELP.len() as u16 + 2).min(whole.height));
    let area = Rect { x: (whole.width - width) / 2, y: (whole.height - height) / 2, width, height };
    let lines: Vec<Line> =
        std::iter::once(Line::from("")).chain(HELP.iter().map(|line| Line::from(format!("  {line}")))).collect();
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(lines).style(Style::new().add_modifier(Modifier::REVERSED)), area);
}

/// How many lines each gets of those that are there: what it wants, and where that is too much, the others' rest is shared.
fn shares(wanted: &[usize], mut lines: usize) -> Vec<usize> {
    let mut given = vec![0; wanted.len()];
    let mut places: Vec<usize> = (0..wanted.len()).collect();
    places.sort_by_key(|&place| wanted[place]);
    for (at, place) in places.into_iter().enumerate() {
        given[place] = wanted[place].min(lines / (wanted.len() - at));
        lines -= given[place];
    }
    given
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_wants_little_leaves_the_rest_to_the_others() {
        assert_eq!(shares(&[3, 2, 4], 30), [3, 2, 4]);
        assert_eq!(shares(&[102, 102, 3], 30), [13, 14, 3]);
        assert_eq!(shares(&[5, 5, 5], 0), [0, 0, 0]);
    }
}
