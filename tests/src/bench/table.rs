//! A report as a table: for a terminal, or as Markdown.

use super::report::{Measure, Of, Report, Target, Unit};

/// The heads of the columns.
const HEADS: [&str; 6] = ["measure", "value", "floor", "ratio", "must reach", "met"];

/// The table with columns of even width.
#[must_use]
pub fn plain(report: &Report) -> String {
    let rows: Vec<[String; 6]> = report.measures.iter().map(row).collect();
    let widths: [usize; 6] = std::array::from_fn(|column| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([HEADS[column].len()]).max().unwrap_or_default()
    });
    let line = |cells: &[String; 6]| {
        let cells = cells
            .iter()
            .zip(widths)
            .enumerate()
            .map(|(column, (cell, width))| {
                // Names read from the left, figures from the right.
                if column == 0 {
                    format!("{cell:<width$}")
                } else {
                    format!("{cell:>width$}")
                }
            });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let lines = std::iter::once(line(&HEADS.map(str::to_owned))).chain(rows.iter().map(line));
    lines.map(|line| line + "\n").collect()
}

/// The table as Markdown, below a sentence that says where the figures come from.
#[must_use]
pub fn markdown(report: &Report) -> String {
    let line = |cells: [String; 6]| format!("| {} |\n", cells.join(" | "));
    let rows = report.measures.iter().map(|measure| {
        let mut cells = row(measure);
        cells[0] = format!("`{}`", cells[0]);
        line(cells)
    });
    let head = line(HEADS.map(str::to_owned));
    let rows: String = rows.collect();
    format!("{}\n\n{head}|---|--:|--:|--:|--:|--:|\n{rows}", origin(report))
}

/// Where the figures come from, in one sentence.
fn origin(report: &Report) -> String {
    let machine = &report.machine;
    let [load, ..] = machine.load_before;
    format!(
        "Keyward {} at commit `{}`, profile `{}`, on {} cores of {} with {} GiB, Linux {}; {} UTC, {:.0} minutes; load before the run \
         {load:.1}; {} Secrets of strangers in the cluster.",
        report.version,
        report.commit,
        report.profile,
        machine.cores,
        machine.processor,
        machine.memory_gib,
        machine.kernel,
        report.started.format("%Y-%m-%d %H:%M"),
        report.seconds / 60.0,
        report.foreign,
    )
}

fn row(measure: &Measure) -> [String; 6] {
    let mark = if measure.stand_in { " (stand-in)" } else { "" };
    let floor = measure.floor.map(|floor| with_unit(floor, measure.unit));
    let spread = measure.spread.map(|spread| format!(" ±{}", number(spread / 2.0)));
    let met = measure.met.map(|met| if met { "yes" } else { "NO" });
    [
        format!("{}{mark}", measure.name),
        with_unit(measure.value, measure.unit),
        floor
            .map(|floor| floor + &spread.unwrap_or_default())
            .unwrap_or_default(),
        measure
            .ratio
            .map(|ratio| format!("{ratio:.2}"))
            .unwrap_or_default(),
        measure
            .target
            .map(|target| demand(target, measure.unit))
            .unwrap_or_default(),
        met.unwrap_or_default().to_owned(),
    ]
}

fn demand(target: Target, unit: Unit) -> String {
    match target.of {
        Of::Value => format!("≤ {}", with_unit(target.at_most, unit)),
        Of::Ratio => format!("≤ {} × floor", number(target.at_most)),
    }
}

fn with_unit(value: f64, unit: Unit) -> String {
    let unit = match unit {
        Unit::Seconds => " s",
        Unit::CpuSeconds => " CPU s",
        Unit::PercentOfACore => " %",
        Unit::Mebibytes => " MiB",
        Unit::RequestsPerSecond => " /s",
        Unit::Requests | Unit::Number => "",
    };
    format!("{}{unit}", number(value))
}

/// Whole numbers as they are, others with as many digits as mean something.
fn number(value: f64) -> String {
    if value.fract() == 0.0 || value.abs() >= 1_000.0 {
        format!("{value:.0}")
    } else if value.abs() >= 100.0 {
        format!("{value:.1}")
    } else if value.abs() >= 0.1 {
        format!("{value:.2}")
    } else {
        format!("{value:.4}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_shows_what_was_measured_and_what_must_be() {
        let target = Target {
            at_most: 1.3,
            of: Of::Ratio,
        };
        let measure = Measure::new("first-sync/seconds", Unit::Seconds, 2.5)
            .beside(&[1.9, 2.1])
            .held_against(Some(target));
        assert_eq!(
            row(&measure),
            [
                "first-sync/seconds",
                "2.50 s",
                "2 s ±0.10",
                "1.25",
                "≤ 1.30 × floor",
                "yes"
            ]
        );
        let bare = Measure::new("gets", Unit::Requests, 12.0);
        assert_eq!(row(&bare), ["gets", "12", "", "", "", ""]);
    }
}
