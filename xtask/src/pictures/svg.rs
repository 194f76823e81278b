//! A screen of a terminal as an SVG: one element for each run of cells that look alike.

use std::fmt::Write;

use vt100::{Cell, Color, Screen};

/// A cell in tenths of a pixel: letters of 14 pixels in a font whose cells are 0.6 as wide as high.
const WIDTH: usize = 84;
const HEIGHT: usize = 180;
/// Positions of the letters in a row.
const BASE: usize = 135;

const FOREGROUND: &str = "#d0d0d0";
const BACKGROUND: &str = "#101216";
/// The sixteen colours that each terminal has its own idea of.
const NAMED: [&str; 16] = [
    "#1e1e1e", "#e06c75", "#98c379", "#e5c07b", "#61afef", "#c678dd", "#56b6c2", "#dcdfe4",
    "#7f848e", "#ff7b85", "#b5e890", "#ffe08a", "#8fc7ff", "#e2a2ff", "#7fe0ea", "#ffffff",
];

/// How a cell looks, apart from its letter.
#[derive(Clone, PartialEq, Eq)]
struct Look {
    foreground: String,
    background: String,
    style: String,
}

/// A run of cells that look alike.
struct Run {
    look: Look,
    column: usize,
    cells: usize,
    text: String,
}

/// Draws the screen.
pub(super) fn draw(screen: &Screen) -> String {
    let (rows, columns) = screen.size();
    let (width, height) = (usize::from(columns) * WIDTH, usize::from(rows) * HEIGHT);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {w} {h}\" width=\"{w}\" height=\"{h}\" \
         font-family=\"DejaVu Sans Mono, Menlo, Consolas, monospace\" font-size=\"14\" \
         xml:space=\"preserve\">\n<rect width=\"100%\" height=\"100%\" fill=\"{BACKGROUND}\"/>\n",
        w = tenths(width),
        h = tenths(height),
    );
    for row in 0..rows {
        let top = usize::from(row) * HEIGHT;
        let runs = runs(screen, row);
        // What is below letters first: letters may reach out of their cells.
        for run in runs.iter().filter(|run| run.look.background != BACKGROUND) {
            let _ = writeln!(
                svg,
                "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"{}\"/>",
                tenths(run.column * WIDTH),
                tenths(top),
                tenths(run.cells * WIDTH),
                tenths(HEIGHT),
                run.look.background
            );
        }
        for run in runs {
            let text = run.text.trim();
            if text.is_empty() {
                continue;
            }
            // A blank is a cell; other letters may be wider.
            let before = run.text.len() - run.text.trim_start().len();
            let cells = run.cells - (run.text.len() - text.len());
            let _ = writeln!(
                svg,
                "<text x=\"{}\" y=\"{}\" textLength=\"{}\" fill=\"{}\"{}>{}</text>",
                tenths((run.column + before) * WIDTH),
                tenths(top + BASE),
                tenths(cells * WIDTH),
                run.look.foreground,
                run.look.style,
                escaped(text)
            );
        }
    }
    svg + "</svg>\n"
}

fn runs(screen: &Screen, row: u16) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let (_, columns) = screen.size();
    for column in 0..columns {
        let Some(cell) = screen.cell(row, column) else {
            continue;
        };
        let letter = match (cell.is_wide_continuation(), cell.has_contents()) {
            (true, _) => "",
            (false, true) => cell.contents(),
            (false, false) => " ",
        };
        let look = look(cell);
        match runs.last_mut().filter(|run| run.look == look) {
            Some(run) => {
                run.cells += 1;
                run.text.push_str(letter);
            }
            None => runs.push(Run {
                look,
                column: usize::from(column),
                cells: 1,
                text: letter.to_owned(),
            }),
        }
    }
    runs
}

fn look(cell: &Cell) -> Look {
    let mut foreground = colour(cell.fgcolor(), FOREGROUND);
    let mut background = colour(cell.bgcolor(), BACKGROUND);
    if cell.inverse() {
        std::mem::swap(&mut foreground, &mut background);
    }
    let mut style = String::new();
    for (is_so, attribute) in [
        (cell.bold(), " font-weight=\"bold\""),
        (cell.italic(), " font-style=\"italic\""),
        (cell.underline(), " text-decoration=\"underline\""),
        (cell.dim(), " opacity=\"0.6\""),
    ] {
        if is_so {
            style.push_str(attribute);
        }
    }
    Look {
        foreground,
        background,
        style,
    }
}

/// A colour as CSS has it. The upper 240 are those of xterm: a cube of six steps, then greys.
fn colour(color: Color, usual: &str) -> String {
    let step = |level: u8| if level == 0 { 0 } else { 55 + 40 * level };
    match color {
        Color::Default => usual.to_owned(),
        Color::Idx(named @ 0..16) => NAMED[usize::from(named)].to_owned(),
        Color::Idx(cube @ 16..232) => {
            let cube = cube - 16;
            let (red, green, blue) = (step(cube / 36), step(cube / 6 % 6), step(cube % 6));
            format!("#{red:02x}{green:02x}{blue:02x}")
        }
        Color::Idx(grey) => format!("#{0:02x}{0:02x}{0:02x}", 8 + 10 * (grey - 232)),
        Color::Rgb(red, green, blue) => format!("#{red:02x}{green:02x}{blue:02x}"),
    }
}

/// So many tenths, without a fraction where there is none.
fn tenths(number: usize) -> String {
    match number % 10 {
        0 => (number / 10).to_string(),
        rest => format!("{}.{rest}", number / 10),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(text: &str) -> String {
        let mut parser = vt100::Parser::new(2, 12, 0);
        parser.process(text.as_bytes());
        draw(parser.screen())
    }

    #[test]
    fn runs_keep_their_place_colour_and_style() {
        let svg = drawn("ab \u{1b}[1;31mc<d\u{1b}[0m\r\n\u{1b}[48;5;236m  \u{1b}[38;5;208mx");
        for wanted in [
            "width=\"100.8\" height=\"36\"",
            "<text x=\"0\" y=\"13.5\" textLength=\"16.8\" fill=\"#d0d0d0\">ab</text>",
            "<text x=\"25.2\" y=\"13.5\" textLength=\"25.2\" fill=\"#e06c75\" font-weight=\"bold\">c&lt;d</text>",
            "<rect x=\"0\" y=\"18\" width=\"16.8\" height=\"18\" fill=\"#303030\"/>",
            "<text x=\"16.8\" y=\"31.5\" textLength=\"8.4\" fill=\"#ff8700\">x</text>",
        ] {
            assert!(svg.contains(wanted), "{wanted} is not in\n{svg}");
        }
    }

    #[test]
    fn wide_letters_take_two_cells() {
        let svg = drawn("\u{5b57}a");
        assert!(svg.contains("textLength=\"25.2\""), "{svg}");
    }

    #[test]
    fn inverse_cells_are_turned_round() {
        let svg = drawn("\u{1b}[7mA");
        assert!(svg.contains("fill=\"#101216\">A</text>"), "{svg}");
        assert!(svg.contains("height=\"18\" fill=\"#d0d0d0\"/>"), "{svg}");
    }
}
