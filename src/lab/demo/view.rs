//! How the demo looks: one line per step while it works, then tables.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use super::check::{Cell, Matrix};
use super::{Demo, Report, Row};
use crate::config::{DemoBackend, DemoConfig, DemoStore};
use crate::lab::Netns;
use crate::lab::view::{BOLD, DIM, GREEN, RED, View};

/// A larger matrix does not fit a terminal; then only what is lost is shown.
const WIDEST: usize = 12;

impl View {
    pub(super) fn title(&mut self, config: &DemoConfig) -> io::Result<()> {
        let store = match config.store {
            DemoStore::File => "leases in files",
            DemoStore::Etcd => "leases in etcd",
        };
        let families = if config.ipv6 { "IPv4 and IPv6" } else { "IPv4" };
        let title =
            format!("Twill demo: {} hosts, {}, {families}, {store}", config.hosts, config.backend.as_str());
        let title = self.paint(BOLD, &title);
        writeln!(self.out, "{title}\n")
    }

    pub(super) fn tables(&mut self, rows: &[Row], matrix: &Matrix, report: &Report) -> io::Result<()> {
        self.leases(rows)?;
        self.reachability(matrix)?;
        let verdict = format!("{} of {} pairs reachable", report.reachable, report.pairs);
        let verdict = self.paint(if report.passed() { GREEN } else { RED }, &verdict);
        let (gbps, elapsed) = (report.throughput_gbps, report.elapsed_s);
        writeln!(self.out, "\n{verdict}, {gbps:.2} Gbit/s over one TCP stream, {elapsed:.1} s in all")?;
        self.out.flush()
    }

    fn leases(&mut self, rows: &[Row]) -> io::Result<()> {
        let heading = self.paint(BOLD, "Leases");
        writeln!(self.out, "\n{heading}")?;
        let mut lines = vec![["host".to_owned(), "address".into(), "subnet".into(), "pod".into()]];
        for row in rows {
            let families = row.addresses.len().max(row.subnets.len()).max(row.pod.len());
            let at = |texts: &[String], i: usize| texts.get(i).cloned().unwrap_or_default();
            lines.extend((0..families).map(|i| {
                let host = if i == 0 { row.host.clone() } else { String::new() };
                [host, at(&row.addresses, i), at(&row.subnets, i), at(&row.pod, i)]
            }));
        }
        let widths: Vec<usize> =
            (0..4).map(|i| lines.iter().map(|line| line[i].len()).max().unwrap_or(0)).collect();
        for (i, line) in lines.iter().enumerate() {
            let cells: Vec<String> =
                line.iter().zip(&widths).map(|(text, w)| format!("{text:<w$}")).collect();
            let text = cells.join("  ");
            let text = if i == 0 { self.paint(DIM, text.trim_end()) } else { text.trim_end().to_owned() };
            writeln!(self.out, "  {text}")?;
        }
        Ok(())
    }

    fn reachability(&mut self, matrix: &Matrix) -> io::Result<()> {
        let heading = self.paint(BOLD, "Reachability");
        writeln!(self.out, "\n{heading}  round trip in ms, from row to column")?;
        if matrix.names.len() > WIDEST {
            return self.losses(matrix);
        }
        let width = matrix.names.iter().map(String::len).max().unwrap_or(0).max(7);
        let columns: Vec<String> = matrix.names.iter().map(|name| format!("{name:>width$}")).collect();
        let head = self.paint(DIM, &format!("{:<width$}{}", "", columns.concat()));
        writeln!(self.out, "  {head}")?;
        for (name, cells) in matrix.names.iter().zip(&matrix.cells) {
            let cells: Vec<String> = cells.iter().map(|cell| self.cell(cell, width)).collect();
            writeln!(self.out, "  {name:<width$}{}", cells.concat())?;
        }
        Ok(())
    }

    /// The pairs that do not answer, one per line.
    fn losses(&mut self, matrix: &Matrix) -> io::Result<()> {
        let mut none = true;
        for (from, cells) in matrix.names.iter().zip(&matrix.cells) {
            for (to, cell) in matrix.names.iter().zip(cells) {
                if matches!(cell, Cell::Lost | Cell::Partly(_)) {
                    none = false;
                    let what = self.cell(cell, 0);
                    writeln!(self.out, "  {from} to {to}: {what}")?;
                }
            }
        }
        if none { writeln!(self.out, "  all {} pairs answer", matrix.pairs()) } else { Ok(()) }
    }

    fn cell(&self, cell: &Cell, width: usize) -> String {
        match cell {
            Cell::Same => format!("{:>width$}", "-"),
            Cell::Reached(rtt) => self.paint(GREEN, &format!("{:>width$}", millis(*rtt))),
            Cell::Partly(answered) => {
                let only = if answered.iter().any(|a| a.is_ipv4()) { "v4 only" } else { "v6 only" };
                self.paint(RED, &format!("{only:>width$}"))
            }
            Cell::Lost => self.paint(RED, &format!("{:>width$}", "lost")),
        }
    }

    /// With `--keep`: exact commands.
    pub(super) fn look_around(
        &mut self,
        demo: &Demo,
        unprivileged: bool,
        page: SocketAddr,
    ) -> io::Result<()> {
        let [from, to, ..] = demo.pods.as_slice() else { return Ok(()) };
        let (Some(host), Some(agent), Some(target)) =
            (demo.lab.hosts.first(), demo.agents.first(), to.addresses.first())
        else {
            return Ok(());
        };
        let inside = if unprivileged {
            format!("nsenter --preserve-credentials -U -m -t {} ", std::process::id())
        } else {
            String::new()
        };
        let exec = |net: &Netns, what: &str| format!("{inside}ip netns exec {} {what}", net.name());
        let twill = |verb: &str| exec(&host.net, &format!("{} {verb}", demo.program.display()));
        let store = demo.store.flags().iter().map(|f| f.to_string_lossy().into_owned()).collect::<Vec<_>>();
        let (store, run) = (store.join(" "), agent.files.run.display());
        let break_it = match demo.backend {
            DemoBackend::Vxlan => "ip link delete flannel.1",
            DemoBackend::HostGw => "ip route flush proto 70",
        };
        let heading = self.paint(BOLD, "The fabric stays up until Ctrl-C.");
        writeln!(self.out, "\n{heading} To look around in a browser, as the first host sees it:")?;
        writeln!(self.out, "  http://{page}/")?;
        writeln!(self.out, "From another terminal:")?;
        let lines = [
            ("the first host's routes", exec(&host.net, "ip route")),
            (
                "its neighbours and devices",
                exec(&host.net, "ip neigh; ") + &exec(&host.net, "ip -d -br link"),
            ),
            ("from pod to pod", exec(&from.net, &format!("ping {target}"))),
            ("its agent's view", twill(&format!("status {store} --run-dir {run}"))),
            ("all leases", twill(&format!("lease list {store}"))),
            ("its agent's log", format!("tail -f {}", agent.files.log.display())),
            ("break something: the agent heals it", exec(&host.net, break_it)),
        ];
        for (what, command) in lines {
            let what = self.paint(DIM, &format!("# {what}"));
            writeln!(self.out, "  {what}\n  {command}")?;
        }
        self.out.flush()
    }
}

fn millis(rtt: Duration) -> String {
    format!("{:.2}", rtt.as_secs_f64() * 1000.0)
}
