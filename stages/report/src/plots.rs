//! Plots as SVG, to stand in the page itself.

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

const SIZE: (u32, u32) = (640, 300);
const TRAINING: RGBColor = RGBColor(148, 163, 184);
const VALIDATION: RGBColor = RGBColor(37, 99, 235);
const BEAM: RGBColor = RGBColor(37, 99, 235);
const GREEDY: RGBColor = RGBColor(148, 163, 184);
const GRID: RGBColor = RGBColor(226, 232, 240);
const LABEL: (&str, u32) = ("sans-serif", 13);

/// Training and validation loss over steps.
pub(crate) fn curves(training: &[(f64, f64)], validation: &[(f64, f64)]) -> Result<String> {
    draw(|area| {
        let points = || training.iter().chain(validation);
        let last = points().map(|p| p.0).fold(1.0, f64::max);
        let highest = points().map(|p| p.1).fold(0.1, f64::max) * 1.05;
        let lowest = (points().map(|p| p.1).fold(highest, f64::min) * 0.95).min(highest - 0.01);
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .x_label_area_size(36)
            .y_label_area_size(48)
            .build_cartesian_2d(0.0..last, lowest..highest)?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .bold_line_style(GRID)
            .axis_style(GRID)
            .x_desc("step")
            .y_desc("loss")
            .label_style(LABEL)
            .x_label_formatter(&|step| format!("{step:.0}"))
            .y_label_formatter(&|loss| format!("{loss:.2}"))
            // Of few steps each has one label.
            .x_labels((last as usize + 1).min(10))
            .draw()?;
        chart
            .draw_series(LineSeries::new(training.iter().copied(), TRAINING.stroke_width(2)))?
            .label("training")
            .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], TRAINING.stroke_width(2)));
        chart
            .draw_series(LineSeries::new(validation.iter().copied(), VALIDATION.stroke_width(2)).point_size(3))?
            .label("validation")
            .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], VALIDATION.stroke_width(2)));
        chart.configure_series_labels().label_font(LABEL).background_style(WHITE.mix(0.8)).draw()?;
        Ok(())
    })
}

/// BLEU by input length: bucket, decoding, value, rows; two bars a bucket.
pub(crate) fn bars(values: &[(&str, &str, f64, u64)]) -> Result<String> {
    draw(|area| {
        let mut buckets: Vec<(&str, u64)> = values.iter().map(|v| (v.0, v.3)).collect();
        buckets.dedup();
        let highest = values.iter().map(|v| v.2).fold(0.1, f64::max) * 1.4;
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .x_label_area_size(36)
            .y_label_area_size(48)
            .build_cartesian_2d(0.0..buckets.len() as f64, 0.0..highest)?;
        let name = |at: &f64| {
            let bucket = buckets.get(at.floor() as usize).filter(|_| (at.fract() - 0.5).abs() < 0.01);
            bucket.map_or(String::new(), |(bucket, rows)| format!("{bucket} ({rows} rows)"))
        };
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(WHITE)
            .bold_line_style(GRID)
            .axis_style(GRID)
            .x_labels(2 * buckets.len() + 1)
            .x_label_formatter(&name)
            .x_desc("source tokens")
            .y_desc("BLEU")
            .label_style(LABEL)
            .draw()?;
        for (decoding, colour, shift) in [("beam", BEAM, 0.15), ("greedy", GREEDY, 0.5)] {
            let bars = values.iter().filter(|v| v.1 == decoding).map(|v| {
                let at = buckets.iter().position(|b| b.0 == v.0).unwrap_or(0) as f64;
                Rectangle::new([(at + shift, 0.0), (at + shift + 0.33, v.2)], colour.filled())
            });
            chart
                .draw_series(bars)?
                .label(decoding)
                .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 14, y + 5)], colour.filled()));
        }
        let mut labels = chart.configure_series_labels();
        labels.position(SeriesLabelPosition::UpperRight).label_font(LABEL).background_style(WHITE.mix(0.8)).draw()?;
        Ok(())
    })
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn draw(figure: impl Fn(&Area<'_>) -> Result<(), Box<dyn std::error::Error>>) -> Result<String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let drawn = area.fill(&WHITE).map_err(Into::into).and_then(|()| figure(&area));
        drawn.and_then(|()| area.present().map_err(Into::into)).map_err(|error| anyhow!("a plot failed: {error}"))?;
    }
    // Fixed pixels would not shrink with the page.
    let size = format!("width=\"{}\" height=\"{}\" ", SIZE.0, SIZE.1);
    Ok(svg.replacen(&size, "", 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plots_are_svg_and_hold_their_labels() {
        let svg = curves(&[(1.0, 3.0), (2.0, 2.0)], &[(2.0, 2.5)]).unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("validation") && svg.contains("viewBox"), "{svg}");
        let svg = bars(&[("1-8", "beam", 2.0, 7), ("1-8", "greedy", 1.0, 7)]).unwrap();
        assert!(svg.contains("1-8 (7 rows)") && svg.contains("greedy"), "{svg}");
        assert!(curves(&[], &[]).is_ok());
    }
}
