//! The live view on a terminal of any size.

use anstyle::{AnsiColor, Color as Ansi, Effects, Style as Ours};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Row, Table};

use super::Watch;
use crate::style::{BAD, Cell, FAINT, GOOD, STRONG, WARNING};
use crate::views::columns::fit;
use crate::views::peers::{COLUMNS, Health, row};

/// How many faults are shown at most.
const FAULTS: usize = 3;
/// How many lines of events there are on a terminal of 24 lines.
const EVENTS: u16 = 7;

impl Watch {
    /// Draws everything.
    pub fn draw(&mut self, frame: &mut Frame<'_>) {
        let area = frame.area();
        let (head, faults) = (self.head(), self.faults());
        let height = |lines: &[Line<'_>]| u16::try_from(lines.len()).unwrap_or(u16::MAX);
        let events = (area.height / 3).min(EVENTS.max(area.height / 4));
        let [top, trouble, peers, heard, keys] = Layout::vertical([
            Constraint::Length(height(&head)),
            Constraint::Length(height(&faults)),
            Constraint::Min(2),
            Constraint::Length(events),
            Constraint::Length(1),
        ])
        .areas(area);
        frame.render_widget(Paragraph::new(head), top);
        frame.render_widget(Paragraph::new(faults), trouble);
        self.list(frame, peers);
        self.happened(frame, heard);
        let help = format!("q quit   arrows, page up and down scroll   s sort: {}", self.order.as_str());
        frame.render_widget(Paragraph::new(Line::styled(help, style(FAINT))), keys);
    }

    fn head(&self) -> Vec<Line<'static>> {
        let silent = self.silent.iter().map(|why| Line::styled(format!("no answer: {why}"), style(BAD)));
        let Some(status) = &self.status else { return silent.collect() };
        let text = |value: &serde_json::Value| value.as_str().unwrap_or("-").to_owned();
        let state = match text(&status["state"]).as_str() {
            "ok" => GOOD,
            "failed" => BAD,
            _ => WARNING,
        };
        let subnets = status["lease"]["subnets"].as_array().into_iter().flatten().map(text);
        let subnets = subnets.collect::<Vec<_>>().join(", ");
        let store = if status["store"]["connected"] == true { "store answers" } else { "store away" };
        let kernel = if status["reconcile"]["converged"] == true { "as wanted" } else { "not as wanted" };
        let first = Line::from(vec![
            Span::styled("twill ", style(STRONG)),
            Span::styled(text(&status["state"]), style(state)),
            Span::raw(format!(
                "  {subnets}  {store}  kernel {kernel}, {} repairs",
                status["reconcile"]["repairs"]
            )),
        ]);
        let count = |health| self.peers.iter().filter(|(peer, _)| peer.health() == health).count();
        let second = format!(
            "{} peers: {} reached, {} cut off, {} in need of attention, {} not measured",
            self.peers.len(),
            count(Health::Good),
            count(Health::Cut),
            count(Health::Poor),
            count(Health::Unknown)
        );
        silent.chain([first, Line::from(second)]).collect()
    }

    fn faults(&self) -> Vec<Line<'static>> {
        let faults = self.status.as_ref().and_then(|status| status["faults"].as_array());
        let faults = faults.map(Vec::as_slice).unwrap_or_default();
        let line = |fault: &serde_json::Value| {
            let field = |name: &str| fault[name].as_str().unwrap_or_default().to_owned();
            let text = format!(" {}: {}; next: {}", field("subject"), field("cause"), field("next"));
            Line::from(vec![Span::styled(field("code"), style(BAD)), Span::raw(text)])
        };
        let more = faults.len().saturating_sub(FAULTS);
        let more = (more > 0).then(|| Line::raw(format!("and {more} faults more: twill status")));
        faults.iter().take(FAULTS).map(line).chain(more).collect()
    }

    fn list(&mut self, frame: &mut Frame<'_>, area: Rect) {
        self.room = usize::from(area.height.saturating_sub(1));
        self.top = self.top.min(self.peers.len().saturating_sub(self.room));
        let all: Vec<Vec<Cell>> = self.peers.iter().map(|(peer, _)| row(peer)).collect();
        let kept = fit(&COLUMNS, &all, Some(area.width.into()));
        let shown = all.iter().skip(self.top).take(self.room);
        let rows = shown.map(|row| Row::new(kept.iter().map(|(at, _)| span(&row[*at]))));
        let widths =
            kept.iter().map(|(_, wide)| Constraint::Length(u16::try_from(*wide).unwrap_or(u16::MAX)));
        let head = Row::new(kept.iter().map(|(at, _)| Span::styled(COLUMNS[*at].name, style(FAINT))));
        frame.render_widget(Table::new(rows, widths).header(head).column_spacing(2), area);
    }

    fn happened(&self, frame: &mut Frame<'_>, area: Rect) {
        let title = Line::styled("events, the last first", style(FAINT));
        let events = self.events.iter().take(area.height.into());
        let lines = events.map(|(at, event)| {
            Line::from(vec![Span::styled(format!("{at}  "), style(FAINT)), Span::raw(event.clone())])
        });
        frame.render_widget(Paragraph::new(std::iter::once(title).chain(lines).collect::<Vec<_>>()), area);
    }
}

fn span(cell: &Cell) -> Span<'static> {
    Span::styled(cell.text.clone(), style(cell.style))
}

/// The same style in ratatui's words.
fn style(ours: Ours) -> Style {
    let color = match ours.get_fg_color() {
        Some(Ansi::Ansi(AnsiColor::Green)) => Some(Color::Green),
        Some(Ansi::Ansi(AnsiColor::Yellow)) => Some(Color::Yellow),
        Some(Ansi::Ansi(AnsiColor::Red)) => Some(Color::Red),
        Some(_) | None => None,
    };
    let mut theirs = Style { fg: color, ..Style::default() };
    for (effect, modifier) in [(Effects::BOLD, Modifier::BOLD), (Effects::DIMMED, Modifier::DIM)] {
        if ours.get_effects().contains(effect) {
            theirs = theirs.add_modifier(modifier);
        }
    }
    theirs
}
