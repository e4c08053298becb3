//! Draws what a program prints on a terminal as an SVG, for pages that show it.

use std::fmt::Write as _;

/// Width of a column and height of a line, in the picture's units, at a font size of 14.
const COLUMN: f64 = 8.4;
const LINE: f64 = 19.0;
const MARGIN: f64 = 18.0;
/// The bar with the three dots above the text.
const BAR: f64 = 34.0;

/// The picture of `command` and what it printed. Lines of only `…` may stand for what is left out.
///
/// Every line is as wide as its columns say, whatever font the reader has: tables stay tables.
pub fn terminal(command: &str, output: &str) -> String {
    let lines: Vec<&str> = output.trim_end().lines().map(str::trim_end).collect();
    let columns = lines.iter().map(|l| l.chars().count()).max().unwrap_or(0).max(command.chars().count() + 2);
    let width = columns as f64 * COLUMN + 2.0 * MARGIN;
    let height = (lines.len() + 1) as f64 * LINE + BAR + 1.5 * MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" aria-label=\"{label}\" \
         font-family=\"ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace\" font-size=\"14\">\n\
         <rect width=\"{width:.0}\" height=\"{height:.0}\" rx=\"10\" fill=\"#0d1117\"/>\n",
        label = escape(&format!("Terminal: {command}")),
    );
    for (index, colour) in ["#ff5f56", "#ffbd2e", "#27c93f"].iter().enumerate() {
        let _ = writeln!(
            svg,
            "<circle cx=\"{:.0}\" cy=\"18\" r=\"6\" fill=\"{colour}\"/>",
            MARGIN + 4.0 + index as f64 * 20.0
        );
    }
    let mut y = BAR + MARGIN;
    let mut line = |text: &str, colour: &str| {
        if !text.is_empty() {
            let length = text.chars().count() as f64 * COLUMN;
            let _ = writeln!(
                svg,
                "<text x=\"{MARGIN:.0}\" y=\"{y:.0}\" fill=\"{colour}\" textLength=\"{length:.0}\" lengthAdjust=\"spacingAndGlyphs\" \
                 xml:space=\"preserve\">{}</text>",
                escape(text)
            );
        }
        y += LINE;
    };
    line(&format!("$ {command}"), "#7ee787");
    for text in lines {
        line(text, "#e6edf3");
    }
    svg.push_str("</svg>\n");
    svg
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_there_and_as_wide_as_its_columns() {
        let svg = terminal("poq demo", "a <b> & c\n\n  12345678  \n");
        assert!(svg.contains(">$ poq demo</text>"));
        assert!(svg.contains("a &lt;b&gt; &amp; c</text>"));
        // Two blanks and eight digits, without the blanks at the end.
        assert!(svg.contains(
            "textLength=\"84\" lengthAdjust=\"spacingAndGlyphs\" xml:space=\"preserve\">  12345678</text>"
        ));
        assert_eq!(svg.matches("<text").count(), 3);
        // The blank line is a line, too: the last text is four lines down.
        assert!(svg.contains(&format!("y=\"{:.0}\"", BAR + MARGIN + 3.0 * LINE)));
    }
}
