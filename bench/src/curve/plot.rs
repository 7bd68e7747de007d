//! The two plots: how many requests a second there are with how many connections, and how long it takes to serve them all once.

use std::fs;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result};
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

use super::peers::{Peer, Side};
use super::rows::Kind;
use crate::publication;
use crate::table::RowResults;

/// Pixels.
const SIZE: (u32, u32) = (960, 600);
const FONT: &str = "sans-serif";
/// Room above the highest point.
const HEADROOM: f64 = 1.08;

/// One server's line.
struct Line<'a> {
    peer: &'a Peer,
    /// Connections, and the value with so many.
    points: Vec<(f64, f64)>,
}

/// What stands around the lines.
struct Frame {
    title: &'static str,
    y_title: &'static str,
    /// Where the legend covers no line.
    legend: SeriesLabelPosition,
}

/// Draws the rate over connections; `None` if there's nothing to draw a line through.
pub(crate) fn rate(rows: &[RowResults<Kind>], peers: &[&Peer]) -> Result<Option<String>> {
    let conns = |kind| if let Kind::Ask { conns } = kind { Some(conns) } else { None };
    let lines = lines(rows, peers, conns, |row, peer| Some(row.median(peer, "requests_per_second")? / 1e3));
    let Some((x, y)) = extent(&lines) else { return Ok(None) };
    let frame = Frame {
        title: "64-byte request/reply, the server's core full",
        y_title: "thousands of requests a second",
        legend: SeriesLabelPosition::LowerRight,
    };
    draw(&frame, x.log_scale(), y, &lines).map(Some)
}

/// Draws the time until all connections are served; `None` if there's nothing to draw a line through.
pub(crate) fn setup(rows: &[RowResults<Kind>], peers: &[&Peer]) -> Result<Option<String>> {
    let conns = |kind| if let Kind::Setup { conns } = kind { Some(conns) } else { None };
    let lines = lines(rows, peers, conns, |row, peer| row.median(peer, "served_seconds"));
    let Some((x, y)) = extent(&lines) else { return Ok(None) };
    let frame = Frame {
        title: "Time to set up and serve connections, the server's core full",
        y_title: "seconds",
        legend: SeriesLabelPosition::UpperLeft,
    };
    draw(&frame, 0.0..x.end, y, &lines).map(Some)
}

/// Writes `curve-rate.svg` and `curve-setup.svg` into `dir`, each if there's something to draw.
pub(crate) fn write(dir: &Path, rows: &[RowResults<Kind>], peers: &[&Peer]) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    for (name, svg) in [("curve-rate.svg", rate(rows, peers)?), ("curve-setup.svg", setup(rows, peers)?)] {
        let path = dir.join(name);
        match svg {
            Some(svg) => publication::write(&path, &svg)?,
            None => eprintln!("{name}: fewer than two counts of connections were measured"),
        }
    }
    Ok(())
}

fn lines<'a>(
    rows: &[RowResults<Kind>],
    peers: &[&'a Peer],
    conns: impl Fn(Kind) -> Option<usize>,
    value: impl Fn(&RowResults<Kind>, &str) -> Option<f64>,
) -> Vec<Line<'a>> {
    let points = |peer: &Peer| {
        rows.iter().filter_map(|row| Some((conns(row.row)? as f64, value(row, peer.name)?))).collect::<Vec<_>>()
    };
    let lines = peers.iter().map(|peer| Line { peer, points: points(peer) });
    lines.filter(|line| !line.points.is_empty()).collect()
}

/// From the fewest to the most connections, and from 0 to above the highest value.
fn extent(lines: &[Line<'_>]) -> Option<(Range<f64>, Range<f64>)> {
    let points = || lines.iter().flat_map(|line| &line.points);
    let least = points().map(|point| point.0).min_by(f64::total_cmp)?;
    let most = points().map(|point| point.0).max_by(f64::total_cmp)?;
    let highest = points().map(|point| point.1).max_by(f64::total_cmp)?;
    (least < most && highest > 0.0).then_some((least..most, 0.0..highest * HEADROOM))
}

fn draw<X>(frame: &Frame, x: X, y: Range<f64>, lines: &[Line<'_>]) -> Result<String>
where
    X: AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64>,
{
    let mut svg = String::new();
    let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(frame.title, (FONT, 22))
        .margin(18)
        .x_label_area_size(48)
        .y_label_area_size(64)
        .build_cartesian_2d(x, y)?;
    let mut mesh = chart.configure_mesh();
    mesh.x_desc("connections").y_desc(frame.y_title).axis_desc_style((FONT, 16)).label_style((FONT, 14));
    mesh.x_label_formatter(&|conns| format!("{conns:.0}")).light_line_style(WHITE.mix(0.0)).draw()?;
    for Line { peer, points } in lines {
        let (red, green, blue) = peer.colour;
        // Ours are the thick ones.
        let width = if peer.side == Side::Theirs { 2 } else { 4 };
        let style = RGBColor(red, green, blue).stroke_width(width);
        let series = LineSeries::new(points.iter().copied(), style).point_size(width + 1);
        let legend = move |(x, y)| PathElement::new([(x, y), (x + 24, y)], style);
        chart.draw_series(series)?.label(peer.name).legend(legend);
    }
    let mut legend = chart.configure_series_labels();
    legend.position(frame.legend.clone()).legend_area_size(34).label_font((FONT, 15));
    legend.background_style(WHITE.mix(0.85)).border_style(BLACK.mix(0.3)).margin(12).draw()?;
    root.present()?;
    drop(legend);
    drop(chart);
    drop(root);
    Ok(svg)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::curve::peers::PEERS;
    use crate::rows::Sample;
    use crate::table::Outcome;

    fn rows(key: &'static str, kinds: &[Kind]) -> Vec<RowResults<Kind>> {
        let measured = |value| Outcome::Measured(Sample::from([(key, value)]));
        let round = || {
            PEERS
                .iter()
                .zip(1..)
                .map(|(peer, value)| (peer.name, measured(f64::from(value))))
                .collect::<BTreeMap<_, _>>()
        };
        kinds.iter().map(|&row| RowResults { row, rounds: vec![round()] }).collect()
    }

    #[test]
    fn every_server_has_its_line_in_both_plots() {
        let asks = rows("requests_per_second", &[1, 64, 20_000].map(|conns| Kind::Ask { conns }));
        let setups = rows("served_seconds", &[1000, 20_000].map(|conns| Kind::Setup { conns }));
        let plots = [rate(&asks, &PEERS), setup(&setups, &PEERS)];
        for svg in plots.map(|plot| plot.unwrap().unwrap()) {
            let document = roxmltree::Document::parse(&svg).unwrap();
            assert_eq!(document.root_element().tag_name().name(), "svg");
            for peer in PEERS {
                assert!(svg.contains(peer.name), "{} is missing", peer.name);
            }
        }
    }

    #[test]
    fn one_count_of_connections_makes_no_line() {
        let rows = rows("requests_per_second", &[Kind::Ask { conns: 64 }]);
        assert!(rate(&rows, &PEERS).unwrap().is_none() && setup(&rows, &PEERS).unwrap().is_none());
    }
}
