//! `/metrics`: a snapshot as OpenMetrics text.

use std::collections::BTreeMap;
use std::fmt;

use midmile_gateway::{
    BackendSnapshot, DatagramsSnapshot, End, MessagesSnapshot, PeerSnapshot, PoolLoss, Refusal, RouteSnapshot,
    Snapshot, TIME_BOUNDS_US, Times,
};
use midmile_kernel::{Figures, Reason};
use midmile_mux::Detour;
use midmile_wire::dns::Malformed;
use midmile_wire::frame::FrameError;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::view::View;

/// The exposition, up to `# EOF`.
pub(super) fn encode(view: View) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("midmile");
    registry.register_collector(Box::new(view));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)?;
    Ok(text)
}

impl Collector for View {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut page = Page(encoder);
        process(self, &mut page)?;
        pairs(&self.snapshot.routes, &mut page)?;
        bytes(&self.snapshot.routes, &mut page)?;
        times(&self.snapshot.routes, &mut page)?;
        backends(&self.snapshot.routes, &mut page)?;
        messages(&self.snapshot.routes, &mut page)?;
        peers(&self.snapshot.peers, &mut page)?;
        friends(&self.friends, &mut page)?;
        own_friends(&self.own, &mut page)
    }
}

/// The labels of one sample.
type Labels<'a> = Vec<(&'static str, &'a str)>;

struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn counters<'a>(
        &mut self,
        (name, unit): (&str, Option<&Unit>),
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'a>, u64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, unit, MetricType::Counter)?;
        for (labels, value) in samples {
            metric.encode_family(&labels.as_slice())?.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        Ok(())
    }

    fn gauges<'a>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'a>, u64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in samples {
            metric.encode_family(&labels.as_slice())?.encode_gauge(&value)?;
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    }
}

fn process(view: &View, page: &mut Page<'_>) -> fmt::Result {
    let Snapshot { uptime, cores, pipes, pipes_leased, pipes_missed, turns, panics, stalls, reports_lost, .. } =
        &view.snapshot;
    let uptime = uptime.as_secs_f64();
    page.0
        .encode_descriptor("uptime", "Time since the relay began to accept.", Some(&Unit::Seconds), MetricType::Gauge)?
        .encode_gauge(&uptime)?;
    page.gauges("build_info", "The version that runs.", [(vec![("version", env!("CARGO_PKG_VERSION"))], 1)])?;
    page.gauge("cores", "Loops that relay, one a CPU.", (*cores).into())?;
    page.gauge(
        "draining",
        "1 while no new connections are accepted and open pairs are waited for.",
        view.draining.into(),
    )?;
    page.gauge("pairs_max", "Most pairs that may be open at once.", view.limits.pairs_max.into())?;
    page.gauge("pipes_max", "Most pipes that bulk directions may hold at once.", view.limits.pipes_max.into())?;
    page.gauge("pipes", "Pipes that exist, leased or ready.", *pipes)?;
    page.gauge("pipes_leased", "Pipes that bulk directions hold.", *pipes_leased)?;
    let missed = "Times that a bulk direction found no pipe and was copied.";
    page.counters(("pipes_missed", None), missed, [(vec![], *pipes_missed)])?;
    page.counters(("turns", None), "Turns of the loops.", [(vec![], *turns)])?;
    let faults = "Faults of midmile's own: each ended the pair that it was dealing with.";
    page.counters(("panics", None), faults, [(vec![], *panics)])?;
    let stuck = "Times that a loop took more than a second over one thing.";
    page.counters(("stalls", None), stuck, [(vec![], *stalls)])?;
    let lost = "Lines on pairs that the log was too slow for.";
    page.counters(("pair_reports_lost", None), lost, [(vec![], *reports_lost)])
}

fn pairs(routes: &[RouteSnapshot], page: &mut Page<'_>) -> fmt::Result {
    let of = |value: fn(&RouteSnapshot) -> u64| {
        routes.iter().map(move |route| (vec![("route", &*route.name)], value(route)))
    };
    page.gauges("pairs_open", "Pairs open now.", of(|route| route.pairs_open))?;
    page.counters(("pairs_opened", None), "Pairs opened.", of(|route| route.pairs_opened))?;
    page.counters(("pairs_connected", None), "Pairs whose server leg came to stand.", of(|route| route.connected))?;
    let retries = "Dials begun again on another backend or address after one failed.";
    page.counters(("dial_retries", None), retries, of(|route| route.dial_retries))?;
    page.counters(("early_dials", None), "Pairs opened at their client's SYN.", of(|route| route.early_dials))?;
    page.counters(("early_used", None), "Pairs opened at a SYN whose client came.", of(|route| route.early_used))?;
    let wasted = "Pairs opened at a SYN that ended before their client came.";
    page.counters(("early_wasted", None), wasted, of(|route| route.early_wasted))?;
    let declined = "SYNs for which no pair was opened, over a limit or not let in.";
    page.counters(("early_declined", None), declined, of(|route| route.early_declined))?;
    let ends = routes.iter().flat_map(|route| {
        End::ALL.iter().map(|end| (vec![("route", &*route.name), ("reason", end.name())], route.ends[end.index()]))
    });
    page.counters(("pairs_ended", None), "Pairs ended, by reason.", ends)?;
    let refusals = routes.iter().flat_map(|route| {
        let labels = |refusal: Refusal| vec![("route", &*route.name), ("reason", refusal.name())];
        Refusal::ALL.iter().map(move |refusal| (labels(*refusal), route.refusals[refusal.index()]))
    });
    page.counters(("clients_refused", None), "Clients refused before a pair was opened, by reason.", refusals)
}

fn bytes(routes: &[RouteSnapshot], page: &mut Page<'_>) -> fmt::Result {
    let samples = routes.iter().flat_map(|route| {
        let directions = [("upstream", &route.upstream), ("downstream", &route.downstream)];
        directions.into_iter().flat_map(move |(direction, flow)| {
            [("copy", flow.copied_bytes), ("splice", flow.spliced_bytes)]
                .map(|(by, bytes)| (vec![("route", &*route.name), ("direction", direction), ("by", by)], bytes))
        })
    });
    let help = "Bytes relayed: upstream from clients to servers, downstream back; by copy or by splice.";
    page.counters(("relayed", Some(&Unit::Bytes)), help, samples)
}

fn times(routes: &[RouteSnapshot], page: &mut Page<'_>) -> fmt::Result {
    let help = "Time from a client's acceptance to its established server leg.";
    let connect = page.0.encode_descriptor("connect", help, Some(&Unit::Seconds), MetricType::Histogram)?;
    histograms(routes, connect, |route| &route.connect)?;
    let help = "Time from a client's acceptance to the first byte from its server that was handed on.";
    let first_byte = page.0.encode_descriptor("ttfb", help, Some(&Unit::Seconds), MetricType::Histogram)?;
    histograms(routes, first_byte, |route| &route.first_byte)
}

fn histograms(
    routes: &[RouteSnapshot],
    mut metric: MetricEncoder<'_>,
    of: fn(&RouteSnapshot) -> &Times,
) -> fmt::Result {
    for route in routes {
        let times = of(route);
        let bounds = TIME_BOUNDS_US.iter().map(|bound| seconds(*bound)).chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(times.buckets).collect();
        let labels = [("route", &*route.name)];
        // The count is that of the buckets read here: the counters go on while they are read, and a histogram must be sound.
        let count = times.buckets.iter().sum();
        let mut family = metric.encode_family(&labels)?;
        family.encode_histogram::<NoLabelSet>(seconds(times.sum_us), count, &buckets, None)?;
    }
    Ok(())
}

/// Microseconds as seconds, as exact as a floating-point number can be.
fn seconds(micros: u64) -> f64 {
    std::time::Duration::from_micros(micros).as_secs_f64()
}

fn backends(routes: &[RouteSnapshot], page: &mut Page<'_>) -> fmt::Result {
    let of = |value: fn(&BackendSnapshot) -> u64| {
        routes.iter().flat_map(move |route| {
            let labels = |backend| vec![("route", &*route.name), ("backend", backend)];
            route.backends.iter().map(move |backend| (labels(&*backend.name), value(backend)))
        })
    };
    page.gauges("backend_healthy", "1 if new pairs may go to the backend.", of(|backend| backend.healthy.into()))?;
    page.gauges("backend_pairs_open", "Pairs open to the backend.", of(|backend| backend.open.into()))
}

fn messages(routes: &[RouteSnapshot], page: &mut Page<'_>) -> fmt::Result {
    let of = |value: fn(&MessagesSnapshot) -> u64| {
        let carried = routes.iter().filter_map(|route| Some((route, route.messages?)));
        carried.map(move |(route, messages)| (vec![("route", &*route.name)], value(&messages)))
    };
    page.counters(("mux_requests", None), "Whole messages of clients that were taken.", of(|of| of.requests))?;
    page.gauges("mux_requests_open", "Requests that wait for their answers.", of(|of| of.requests_open))?;
    page.counters(("mux_answers", None), "Answers of backends handed to their clients.", of(|of| of.answers))?;
    let again = "Requests sent again because their connection to a backend was lost or silent.";
    page.counters(("mux_retries", None), again, of(|of| of.retries))?;
    let failed = "Requests that midmile answered with SERVFAIL because no backend answered in time.";
    page.counters(("mux_servfails", None), failed, of(|of| of.servfails))?;
    let suspects = "Requests that went on alone because several connections were lost while they were out.";
    page.counters(("mux_suspects", None), suspects, of(|of| of.suspects))?;
    let declined = "Requests that midmile answered itself because they are of a kind that isn't carried.";
    page.counters(("mux_declined", None), declined, of(|of| of.declined))?;
    let malformed = routes.iter().filter_map(|route| Some((&*route.name, route.messages?.malformed)));
    let malformed = malformed.flat_map(|(route, counts)| {
        let labels = move |why: Malformed| vec![("route", route), ("reason", why.name())];
        Malformed::ALL.iter().map(move |why| (labels(*why), counts[why.index()]))
    });
    let broken = "Requests that midmile answered with FORMERR because they aren't well formed, by why.";
    page.counters(("mux_malformed", None), broken, malformed)?;
    let full = "Requests that found a loop with as many as it may hold.";
    page.counters(("mux_requests_max_reached", None), full, of(|of| of.requests_max))?;
    let late = "Answers that came when their request had been answered otherwise, or its client had gone.";
    page.counters(("mux_answers_late", None), late, of(|of| of.answers_late))?;
    page.counters(("mux_answers_stray", None), "Answers to no request, which are dropped.", of(|of| of.answers_stray))?;
    let unclear = "Transfers of zones whose answers couldn't be followed to the last.";
    page.counters(("mux_transfers_unclear", None), unclear, of(|of| of.transfers_unclear))?;
    let held = "Times that a client wasn't read because it had as many transfers as it may.";
    page.counters(("mux_transfers_held", None), held, of(|of| of.transfers_held))?;
    page.gauges("mux_upstreams_open", "Connections to backends that stand.", of(|of| of.upstreams_open))?;
    page.counters(("mux_upstreams_dialled", None), "Dials of backends.", of(|of| of.upstreams_dialled))?;
    page.counters(("mux_dials_failed", None), "Dials of backends that failed.", of(|of| of.dials_failed))?;
    let lost = "Connections to backends that had stood and were lost.";
    page.counters(("mux_upstreams_lost", None), lost, of(|of| of.upstreams_lost))?;
    let misframed = routes.iter().filter_map(|route| Some((&*route.name, route.messages?))).flat_map(|(route, of)| {
        [("client", of.requests_misframed), ("backend", of.answers_misframed)].into_iter().flat_map(
            move |(from, counts)| {
                let labels = move |error: FrameError| vec![("route", route), ("from", from), ("reason", error.name())];
                FrameError::ALL.iter().map(move |error| (labels(*error), counts[error.index()]))
            },
        )
    });
    let nothing = "Connections ended because what came is no message, by the framer's reason.";
    page.counters(("mux_frame_errors", None), nothing, misframed)?;
    datagrams(routes, page)
}

fn datagrams(routes: &[RouteSnapshot], page: &mut Page<'_>) -> fmt::Result {
    let carried = || routes.iter().filter_map(|route| Some((&*route.name, route.messages.as_ref()?.datagrams)));
    let of = |value: fn(&DatagramsSnapshot) -> u64| {
        carried().map(move |(route, datagrams)| (vec![("route", route)], value(&datagrams)))
    };
    page.counters(("mux_datagrams", None), "Requests sent to backends as datagrams.", of(|of| of.sent))?;
    let again = "Datagrams sent once more because no answer came soon.";
    page.counters(("mux_datagrams_resent", None), again, of(|of| of.again))?;
    let failed = "Times that a backend took no datagrams, or left all of them unanswered.";
    page.counters(("mux_datagrams_failed", None), failed, of(|of| of.failed))?;
    page.gauges("mux_sockets_open", "Sockets for datagrams to backends.", of(|of| of.sockets_open))?;
    page.counters(("mux_binds_failed", None), "Sockets for datagrams that couldn't be had.", of(|of| of.binds_failed))?;
    let detours = carried().flat_map(|(route, datagrams)| {
        let labels = move |why: Detour| vec![("route", route), ("reason", why.name())];
        Detour::ALL.iter().map(move |why| (labels(*why), datagrams.detours[why.index()]))
    });
    let round = "Requests that went by a connection though their backend is asked over UDP, by reason.";
    page.counters(("mux_detours", None), round, detours)
}

fn peers(peers: &[PeerSnapshot], page: &mut Page<'_>) -> fmt::Result {
    let named: Vec<(String, &PeerSnapshot)> = peers.iter().map(|peer| (peer.name.to_string(), peer)).collect();
    let of =
        |value: fn(&PeerSnapshot) -> u64| named.iter().map(move |(name, peer)| (vec![("peer", &**name)], value(peer)));
    page.gauges("pool_ready", "Trunk connections that wait ready.", of(|peer| peer.ready))?;
    page.gauges("pool_under_way", "Trunk connections being made.", of(|peer| peer.under_way))?;
    page.counters(("pool_taken", None), "Pairs that took a trunk connection.", of(|peer| peer.taken))?;
    let missed = "Pairs that found no trunk connection ready, and waited for one.";
    page.counters(("pool_missed", None), missed, of(|peer| peer.missed))?;
    page.counters(("pool_dials", None), "Trunk connections begun.", of(|peer| peer.dials))?;
    let losses = named.iter().flat_map(|(name, peer)| {
        PoolLoss::ALL.iter().map(|loss| (vec![("peer", &**name), ("reason", loss.name())], peer.losses[loss.index()]))
    });
    page.counters(("pool_lost", None), "Trunk connections lost before a pair had them, by reason.", losses)?;
    let retries = "Pairs that were given another trunk connection because theirs failed before a byte had crossed.";
    page.counters(("pool_retries", None), retries, of(|peer| peer.retries))?;
    let mut rtt =
        page.0.encode_descriptor("peer_rtt", "A round trip to the peer.", Some(&Unit::Seconds), MetricType::Gauge)?;
    for (name, peer) in named.iter().filter(|(_, peer)| peer.rtt_us > 0) {
        rtt.encode_family(&[("peer", &**name)])?.encode_gauge(&seconds(peer.rtt_us))?;
    }
    let sent = "Segments with data sent to the peer on trunk connections whose pair has ended.";
    page.counters(("peer_segments_sent", None), sent, of(|peer| peer.sent_segments))?;
    let again = "Segments among them that were sent again.";
    page.counters(("peer_segments_retransmitted", None), again, of(|peer| peer.retransmitted_segments))?;
    let rate = "Bytes a second at which a trunk connection last delivered to the peer.";
    page.gauges("peer_delivery_rate", rate, of(|peer| peer.delivery_rate))?;
    let best = "The most bytes a second that a trunk connection has delivered to the peer.";
    page.gauges("peer_delivery_rate_best", best, of(|peer| peer.delivery_rate_best))
}

/// Friends of the host, whoever attached them.
fn friends(friends: &BTreeMap<String, Figures>, page: &mut Page<'_>) -> fmt::Result {
    if friends.is_empty() {
        return Ok(());
    }
    let of = |value: fn(&Figures) -> u64| {
        friends.iter().map(move |(cgroup, figures)| (vec![("cgroup", &**cgroup)], value(figures)))
    };
    let ends = "Ends of connections within the host that were made friends; a connection has two.";
    page.counters(("friends_ends", None), ends, of(|figures| figures.ends))?;
    page.counters(("friends_messages", None), "Messages that skipped TCP.", of(|figures| figures.messages))?;
    let bytes = "Bytes that skipped TCP.";
    page.counters(("friends_skipped", Some(&Unit::Bytes)), bytes, of(|figures| figures.bytes))?;
    page.counters(("friends_turns", None), "Turns of directions from TCP to the bypass.", of(|figures| figures.turns))?;
    let kept = friends.iter().flat_map(|(cgroup, figures)| {
        let labels = |reason: Reason| vec![("cgroup", &**cgroup), ("reason", reason.name())];
        figures.reasons.iter().map(move |(reason, count)| (labels(*reason), *count))
    });
    page.counters(("friends_kept", None), "Connections, or stretches of a direction, kept on TCP, by reason.", kept)
}

/// What is counted of this process's own legs, under their names in `midmile friends status`.
fn own_friends(own: &BTreeMap<&'static str, u64>, page: &mut Page<'_>) -> fmt::Result {
    if own.is_empty() {
        return Ok(());
    }
    let of = |name: &str| own.get(name).copied().unwrap_or(0);
    page.counters(("friend_legs", None), "Legs that came to be friends of their peers.", [(vec![], of("friends"))])?;
    let bytes = [("out", "ring"), ("in", "ring"), ("out", "tcp"), ("in", "tcp")]
        .map(|(direction, by)| (vec![("direction", direction), ("by", by)], of(&format!("{by}_{direction}_bytes"))));
    let help = "Bytes of legs that ask for friends: by memory, or by TCP since they offered or attached.";
    page.counters(("friend_leg", Some(&Unit::Bytes)), help, bytes)?;
    let broken = "Legs reset because something impossible stood in the memory that they share with their peer.";
    page.counters(("friend_legs_broken", None), broken, [(vec![], of("friend_broken"))])
}

#[cfg(test)]
mod tests;
