//! The configuration file of each gateway on each step.

use std::fmt::{self, Write};
use std::time::Duration;

use crate::scenario::{SEGMENT, Scenario, Span};
use crate::server::PORT;
use crate::steps::Step;
use crate::topology::address;
use crate::windows::WindowsBy;

/// Where gateways hear each other.
pub(crate) const TRUNK_PORT: u16 = 7000;
/// Connections kept in store.
const POOL_MIN: u32 = 8;
const POOL_MAX: u32 = 64;
/// Of the trunk's rate, so that its queue stays empty.
const PACE_PERCENT: u64 = 96;
/// Of an edge's rate: more than the trunk brings, so that what its start has held up is caught up with.
const EDGE_PACE_PERCENT: u64 = 98;
/// Window and pace of a trunk whose scenario names no rate.
const WINDOW_UNLIMITED: u64 = 16 << 20;
/// Buffers aren't larger than the lab allows its hosts.
const BUFFER_MAX: u64 = 64 << 20;

/// The files of a step's gateways, from the client's on. `congestion` is set on every leg; `key_file` has what peers prove
/// to each other; `windows` says by what windows are opened.
pub(crate) fn files(
    step: Step,
    scenario: &Scenario,
    congestion: &str,
    key_file: &str,
    windows: WindowsBy,
) -> Vec<String> {
    let gateway = |place| Gateway { step, scenario, congestion, key_file, windows, place };
    (0..scenario.gateways()).map(|place| gateway(place).file()).collect()
}

struct Gateway<'a> {
    step: Step,
    scenario: &'a Scenario,
    congestion: &'a str,
    key_file: &'a str,
    windows: WindowsBy,
    /// Among the gateways.
    place: usize,
}

impl Gateway<'_> {
    fn file(&self) -> String {
        let mut file = String::from("[limits]\ncores = 1\npairs_max = 1000\n\n[drain]\ntimeout = \"0s\"\n\n");
        if !self.step.trunk() {
            self.relay(&mut file);
            return file;
        }
        line(
            &mut file,
            format_args!("[gateway]\nname = \"{}\"\nwindow_by = \"{}\"\n", self.name(self.place), self.windows),
        );
        if self.place == 0 {
            self.ingress(&mut file);
        } else {
            self.trunk(&mut file);
        }
        if self.place + 1 < self.scenario.gateways() {
            self.peer(&mut file);
        }
        if self.place > 0 {
            self.caller(&mut file);
        }
        file
    }

    /// A relay that dials the next host at each connection.
    fn relay(&self, file: &mut String) {
        let listen = if self.place == 0 { PORT } else { TRUNK_PORT };
        let to = if self.last() { PORT } else { TRUNK_PORT };
        line(file, format_args!("[[listener]]\nlisten = \"0.0.0.0:{listen}\""));
        line(file, format_args!("to = [\"{}:{to}\"]", address(self.place + 1, 2)));
        if self.step >= Step::EarlyDial {
            line(file, format_args!("early_dial = true"));
        }
        let client = if self.place == 0 { self.edge() } else { String::new() };
        self.leg(file, "listener.client", &client);
        self.leg(file, "listener.server", &self.server());
    }

    /// The gateway that clients come to.
    fn ingress(&self, file: &mut String) {
        let gateways = self.scenario.gateways();
        let via: Vec<_> = (1..gateways).map(|place| format!("\"{}\"", self.name(place))).collect();
        line(file, format_args!("[[listener]]\nname = \"web\"\nlisten = \"0.0.0.0:{PORT}\""));
        line(file, format_args!("to = [\"{}:{PORT}\"]", address(gateways, 2)));
        line(file, format_args!("via = [{}]\nearly_dial = true", via.join(", ")));
        self.leg(file, "listener.client", &self.edge());
    }

    /// Where the gateway before it comes in.
    fn trunk(&self, file: &mut String) {
        line(file, format_args!("[[trunk]]\nlisten = \"0.0.0.0:{TRUNK_PORT}\""));
        line(file, format_args!("peers = [\"{}\"]", self.name(self.place - 1)));
        let allow = if self.last() { format!("\"{}:{PORT}\"", address(self.place + 1, 2)) } else { String::new() };
        line(file, format_args!("allow = [{allow}]"));
        if !self.last() {
            line(file, format_args!("onward = [\"{}\"]", self.name(self.place + 1)));
        }
        self.leg(file, "trunk.leg", &self.window(&self.scenario.links[self.place]));
        self.leg(file, "trunk.server", &self.server());
    }

    /// The gateway behind it.
    fn peer(&self, file: &mut String) {
        line(file, format_args!("[[peer]]\nname = \"{}\"", self.name(self.place + 1)));
        line(file, format_args!("address = \"{}:{TRUNK_PORT}\"", address(self.place + 1, 2)));
        line(file, format_args!("key_file = \"{}\"", self.key_file));
        line(file, format_args!("pool_min = {POOL_MIN}\npool_max = {POOL_MAX}"));
        self.leg(file, "peer.leg", &self.window(&self.scenario.links[self.place + 1]));
    }

    /// The gateway before it, which dials.
    fn caller(&self, file: &mut String) {
        line(
            file,
            format_args!("[[peer]]\nname = \"{}\"\nkey_file = \"{}\"", self.name(self.place - 1), self.key_file),
        );
        if self.windows == WindowsBy::Route {
            // Only a host that is known can have a route. Nobody goes through it, so nobody is dialled there.
            line(file, format_args!("address = \"{}:{TRUNK_PORT}\"\npool_min = 0", address(self.place, 1)));
        }
        line(file, format_args!(""));
    }

    fn leg(&self, file: &mut String, table: &str, more: &str) {
        line(file, format_args!("[{table}]\ncongestion = \"{}\"\n{more}", self.congestion));
    }

    /// What a leg to a client is allowed on the later steps.
    fn edge(&self) -> String {
        let mut options = String::new();
        if self.step >= Step::EdgeWindows {
            line(&mut options, format_args!("own = true\ninitial_window = \"{}B\"", self.scenario.edge_bytes()));
            if let Some(rate) = self.scenario.links[0].to_client.rate {
                line(&mut options, format_args!("pacing = \"{}\"", rate.percent(EDGE_PACE_PERCENT)));
            }
        }
        if self.step >= Step::FastOpen {
            line(&mut options, format_args!("fast_open = true"));
        }
        options
    }

    /// What a leg to the server is allowed: all of the server's first window must fit, and the dial must not cost a round trip
    /// when the request is there already.
    fn server(&self) -> String {
        let mut options = String::new();
        if self.step >= Step::EdgeWindows && self.last() {
            line(&mut options, format_args!("recv_buffer = \"{}B\"", self.scenario.edge_buffer().max(1 << 20)));
        }
        if self.step >= Step::FastOpen && self.last() {
            line(&mut options, format_args!("fast_open = true"));
        }
        options
    }

    /// A path's worth at once, at the path's pace.
    fn window(&self, span: &Span) -> String {
        let mut options = String::new();
        if self.step < Step::Window {
            return options;
        }
        let pace = span.to_client.rate.map(|rate| rate.percent(PACE_PERCENT));
        // A pace of two windows a round trip is the most that the kernel grants, so a window of one is paced as asked.
        let round_trip = span.round_trip() + Duration::from_millis(1);
        let window =
            pace.map_or(WINDOW_UNLIMITED, |pace| pace.bytes_in(round_trip)).clamp(10 * SEGMENT, BUFFER_MAX / 2);
        line(&mut options, format_args!("initial_window = \"{window}B\""));
        if let Some(pace) = pace {
            line(&mut options, format_args!("pacing = \"{pace}\""));
        }
        let buffer = (window * 2).max(1 << 20);
        line(&mut options, format_args!("recv_buffer = \"{buffer}B\"\nsend_buffer = \"{buffer}B\""));
        options
    }

    fn last(&self) -> bool {
        self.place + 1 == self.scenario.gateways()
    }

    fn name(&self, place: usize) -> &str {
        &self.scenario.hosts[place + 1]
    }
}

fn line(file: &mut String, text: fmt::Arguments<'_>) {
    writeln!(file, "{text}").expect("a string takes any text");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files_of(step: Step) -> Vec<toml::Table> {
        files_by(step, WindowsBy::Auto)
    }

    fn files_by(step: Step, windows: WindowsBy) -> Vec<toml::Table> {
        let scenario = Scenario::load("pathway").unwrap();
        files(step, &scenario, "cubic", "/run/key", windows).iter().map(|file| file.parse().unwrap()).collect()
    }

    #[test]
    fn by_routes_each_end_of_a_trunk_knows_the_other() {
        for windows in WindowsBy::ALL {
            let files = files_by(Step::Window, windows);
            assert_eq!(files[0]["gateway"]["window_by"].as_str(), Some(windows.name()));
            let caller = files[1]["peer"][0].get("address").and_then(toml::Value::as_str);
            assert_eq!(caller, (windows == WindowsBy::Route).then_some("10.2.0.1:7000"));
        }
    }

    #[test]
    fn relays_dial_the_next_host() {
        let files = files_of(Step::Split);
        assert_eq!(files.len(), 2);
        assert_eq!(files[0]["listener"][0]["to"][0].as_str(), Some("10.2.0.2:7000"));
        assert_eq!(files[1]["listener"][0]["to"][0].as_str(), Some("10.3.0.2:80"));
        assert!(files[0]["listener"][0].get("early_dial").is_none());
        assert_eq!(files_of(Step::EarlyDial)[1]["listener"][0]["early_dial"].as_bool(), Some(true));
    }

    #[test]
    fn trunks_name_each_other_and_the_server_alone() {
        let files = files_of(Step::Pool);
        assert_eq!(files[0]["listener"][0]["via"][0].as_str(), Some("mumbai"));
        assert_eq!(files[0]["peer"][0]["address"].as_str(), Some("10.2.0.2:7000"));
        assert_eq!(files[1]["trunk"][0]["peers"][0].as_str(), Some("oregon"));
        assert_eq!(files[1]["trunk"][0]["allow"][0].as_str(), Some("10.3.0.2:80"));
        assert_eq!(files[0]["peer"][0]["key_file"], files[1]["peer"][0]["key_file"]);
    }

    #[test]
    fn a_window_is_the_paths_worth() {
        let files = files_of(Step::Window);
        let leg = &files[0]["peer"][0]["leg"];
        assert_eq!(leg["pacing"].as_str(), Some("480Mbit"));
        // 480 Mbit/s over 219 ms.
        assert_eq!(leg["initial_window"].as_str(), Some("13140000B"));
        assert!(files[0]["listener"][0]["client"].get("initial_window").is_none());
        let files = files_of(Step::FastOpen);
        assert_eq!(files[0]["listener"][0]["client"]["initial_window"].as_str(), Some("1882400B"));
        assert_eq!(files[0]["listener"][0]["client"]["fast_open"].as_bool(), Some(true));
        assert_eq!(files[1]["trunk"][0]["server"]["fast_open"].as_bool(), Some(true));
    }
}
