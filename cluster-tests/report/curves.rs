//! What changed over a run: how long writes took, and what the nodes took of the machine, drawn over its time.

use std::collections::BTreeMap;

use maud::{Markup, PreEscaped, html};
use plotters::prelude::*;

use super::figures::Samples;
use crate::history::{Action, Gauge, History};

const SIZE: (u32, u32) = (600, 240);
/// The names of the curves stand to the right of their ends.
const LEGEND: f64 = 1.14;
/// Stretches of time in which latencies are summed up.
const STRETCHES: f64 = 120.0;
/// What is drawn beside each other can be told apart.
const COLOURS: [RGBColor; 8] = [
    RGBColor(47, 127, 184),
    RGBColor(201, 138, 0),
    RGBColor(31, 122, 68),
    RGBColor(196, 30, 42),
    RGBColor(135, 87, 201),
    RGBColor(20, 150, 160),
    RGBColor(120, 90, 60),
    RGBColor(92, 103, 118),
];

/// A name, and points over seconds.
type Curve = (String, Vec<(f64, f64)>);

/// Four pictures; nothing where there is nothing to draw.
pub fn curves(history: &History) -> Markup {
    let mebibytes = |bytes: u64| bytes as f64 / 1024.0 / 1024.0;
    let pictures = [
        (
            "Time from a submit to its acknowledgement, ms",
            latencies(history),
        ),
        ("Memory, MiB", taken(history, |it| mebibytes(it.resident))),
        (
            "Open files and sockets",
            taken(history, |it| it.descriptors as f64),
        ),
        (
            "Data on disk, MiB",
            taken(history, |it| mebibytes(it.on_disk)),
        ),
    ];
    let end = history.end().seconds().max(1.0);
    let drawn = pictures.iter().filter(|(_, curves)| !curves.is_empty());
    let drawn: Vec<_> = drawn
        .map(|(title, curves)| (title, draw(curves, end)))
        .collect();
    html! {
        @if !drawn.is_empty() {
            h2 { "Over time" }
            div class="curves" {
                @for (title, picture) in &drawn {
                    figure {
                        figcaption { (title) }
                        @match picture {
                            Ok(svg) => (PreEscaped(svg)),
                            Err(why) => p class="unproven" { "can't be drawn: " (why) },
                        }
                    }
                }
            }
        }
    }
}

/// Of the submits that were asked for in each stretch: half took as long or less, and 99 of 100.
fn latencies(history: &History) -> Vec<Curve> {
    let stretch = (history.end().seconds() / STRETCHES).max(1.0);
    let mut stretches: BTreeMap<u64, Vec<std::time::Duration>> = BTreeMap::new();
    for operation in &history.operations {
        let is_submit = matches!(operation.action, Action::Submit { .. });
        if let (true, Some(at), Some(_)) = (is_submit, operation.answered, operation.submitted()) {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a count of stretches"
            )]
            let number = (operation.invoked.seconds() / stretch) as u64;
            let took = at.since(operation.invoked);
            stretches.entry(number).or_default().push(took);
        }
    }
    let of = |percent| {
        let point = |(number, took): (&u64, &Vec<std::time::Duration>)| {
            let took = Samples::new(took.clone()).percentile(percent);
            let middle = (*number as f64 + 0.5) * stretch;
            (middle, took.as_secs_f64() * 1_000.0)
        };
        stretches.iter().map(point).collect()
    };
    match stretches.is_empty() {
        true => Vec::new(),
        false => vec![("p50".to_owned(), of(50)), ("p99".to_owned(), of(99))],
    }
}

/// Of each node.
fn taken(history: &History, value: impl Fn(&Gauge) -> f64) -> Vec<Curve> {
    let mut nodes: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
    for gauge in &history.gauges {
        let points = nodes.entry(&gauge.node).or_default();
        points.push((gauge.at.seconds(), value(gauge)));
    }
    let named = nodes.into_iter();
    named
        .map(|(node, points)| (node.to_owned(), points))
        .collect()
}

/// One picture. The reason of a failure is for a person.
fn draw(curves: &[Curve], end: f64) -> Result<String, String> {
    let mut svg = String::new();
    paint(&mut svg, curves, end).map_err(|error| error.to_string())?;
    // Within a page it needs no name of its own.
    Ok(svg.replace(" xmlns=\"http://www.w3.org/2000/svg\"", ""))
}

fn paint(svg: &mut String, curves: &[Curve], end: f64) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let values = curves.iter().flat_map(|(_, points)| points);
    let highest = values.map(|(_, value)| *value).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(&root)
        .margin(8)
        .x_label_area_size(24)
        .y_label_area_size(52)
        .build_cartesian_2d(0.0..end * LEGEND, 0.0..highest * 1.1)?;
    let minutes = end > 300.0;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(RGBColor(223, 228, 234))
        .axis_style(RGBColor(92, 103, 118))
        .x_labels(8)
        .y_labels(6)
        .x_label_formatter(&|at| match minutes {
            true => format!("{:.0} min", at / 60.0),
            false => format!("{at:.0} s"),
        })
        .y_label_formatter(&|value| match highest < 5.0 {
            true => format!("{value:.1}"),
            false => format!("{value:.0}"),
        })
        .draw()?;
    for (number, (name, points)) in curves.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        chart
            .draw_series(LineSeries::new(
                points.iter().copied(),
                colour.stroke_width(2),
            ))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 14, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .draw()?;
    root.present()?;
    Ok(())
}
