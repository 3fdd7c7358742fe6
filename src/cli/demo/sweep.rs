//! The demo over node counts and sizes: a table and two charts.

use std::fmt::Write as _;
use std::fs;

use anyhow::Context as _;

use super::chart::{Chart, Series};
use super::lab::Lab;
use super::{Args, Figures, check_copies, distribute, make_file, remove_copies, size_text};

/// One file is written once a node, kept in its store while it is placed, and made once.
const COPIES_ON_DISK_PER_NODE: u64 = 2;

/// Runs every distribution of the sweep and writes what came of it into the folder.
pub(super) async fn run(args: &Args) -> anyhow::Result<()> {
    fs::create_dir_all(&args.out)
        .with_context(|| format!("cannot create the folder {}", args.out.display()))?;
    let most_nodes = args.sweep_nodes.iter().copied().max().unwrap_or(1);
    let mut over_nodes = Vec::new();
    let mut over_sizes = Vec::new();
    let mut left_out = Vec::new();
    for &nodes in &args.sweep_nodes {
        let lab = Lab::start(nodes.max(1)).await?;
        for &size_bytes in &args.sweep_sizes {
            match point(&lab, size_bytes).await? {
                Some(figures) => over_nodes.push(figures),
                None => left_out.push((nodes, size_bytes)),
            }
        }
        if nodes == most_nodes {
            for &size_bytes in &args.sweep_sizes_at_most_nodes {
                match point(&lab, size_bytes).await? {
                    Some(figures) => over_sizes.push(figures),
                    None => left_out.push((nodes, size_bytes)),
                }
            }
        }
        lab.stop().await?;
    }
    let mut table = table(&over_nodes, &over_sizes);
    for (nodes, size_bytes) in left_out {
        let _ = writeln!(
            table,
            "\nLeft out, since the disk has no room for it: {} to {nodes} nodes.",
            size_text(size_bytes)
        );
    }
    fs::write(args.out.join("sweep.md"), &table)?;
    fs::write(
        args.out.join("rate-over-nodes.svg"),
        nodes_chart(&over_nodes, args).to_svg(),
    )?;
    fs::write(
        args.out.join("rate-over-sizes.svg"),
        sizes_chart(&over_sizes, most_nodes).to_svg(),
    )?;
    let all: Vec<_> = over_nodes.iter().chain(&over_sizes).collect();
    fs::write(
        args.out.join("sweep.json"),
        serde_json::to_vec_pretty(&all)?,
    )?;
    if args.json {
        println!("{}", serde_json::to_string(&all)?);
    } else {
        println!("{table}\nWritten to {}", args.out.display());
    }
    Ok(())
}

/// One distribution, checked and cleared away; none where the disk has no room for it.
async fn point(lab: &Lab, size_bytes: u64) -> anyhow::Result<Option<Figures>> {
    let copies = lab.node_count() as u64 * COPIES_ON_DISK_PER_NODE + 1;
    let free = rustix::fs::statvfs(lab.folder())?;
    if size_bytes.saturating_mul(copies) > free.f_bavail.saturating_mul(free.f_frsize) {
        return Ok(None);
    }
    let file = make_file(lab.folder(), &format!("sweep-{size_bytes}.bin"), size_bytes)?;
    let figures = distribute(lab, &file, false).await?;
    check_copies(lab, &file)?;
    remove_copies(lab, &file)?;
    fs::remove_file(&file.path)?;
    eprintln!(
        "{} to {} nodes: {:.2} s, {:.0} MB/s",
        size_text(size_bytes),
        figures.nodes,
        figures.seconds,
        figures.rate_mb_per_s
    );
    Ok(Some(figures))
}

fn table(over_nodes: &[Figures], over_sizes: &[Figures]) -> String {
    let mut text = String::from(
        "| nodes | size | seconds | MB/s to all nodes | CPU s/GB | origin copies |\n\
         | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for figures in over_nodes.iter().chain(over_sizes) {
        let copies = figures
            .origin_copies
            .map_or_else(|| "-".to_owned(), |copies| format!("{copies:.2}"));
        let _ = writeln!(
            text,
            "| {} | {} | {:.2} | {:.1} | {:.2} | {copies} |",
            figures.nodes,
            size_text(figures.size_bytes),
            figures.seconds,
            figures.rate_mb_per_s,
            figures.cpu_s_per_gb
        );
    }
    text
}

#[expect(clippy::cast_precision_loss, reason = "positions in a chart")]
fn nodes_chart(over_nodes: &[Figures], args: &Args) -> Chart {
    let line = |size_bytes: u64| {
        let of_size = over_nodes
            .iter()
            .filter(|figures| figures.size_bytes == size_bytes);
        Series {
            name: size_text(size_bytes),
            points: of_size.map(|f| (f.nodes as f64, f.rate_mb_per_s)).collect(),
        }
    };
    Chart {
        title: "Rate over nodes, all on one machine".to_owned(),
        x_label: "nodes".to_owned(),
        y_label: "MB/s to all nodes together".to_owned(),
        series: args
            .sweep_sizes
            .iter()
            .map(|size_bytes| line(*size_bytes))
            .collect(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "positions in a chart")]
fn sizes_chart(over_sizes: &[Figures], nodes: usize) -> Chart {
    let points = over_sizes
        .iter()
        .map(|f| (f.size_bytes as f64 / 1e6, f.rate_mb_per_s))
        .collect();
    Chart {
        title: format!("Rate over file size, {nodes} nodes on one machine"),
        x_label: "file size, MB".to_owned(),
        y_label: "MB/s to all nodes together".to_owned(),
        series: vec![Series {
            name: format!("{nodes} nodes"),
            points,
        }],
    }
}
