use super::*;
use crate::packet::TcpView;
use crate::steps::Step;
use crate::visit::Visit;

const MS: Duration = Duration::from_millis(1);

/// A sighting on a link: ports stand for the connection.
fn seen(began: Instant, link: usize, port: u16, to_server: bool, at: u32, payload: usize, syn: bool) -> Sighting {
    let (near, far) = (SocketAddr::from(([10, 1, 0, 1], port)), SocketAddr::from(([10, 1, 0, 2], 80)));
    let (source, destination) = if to_server { (near, far) } else { (far, near) };
    let tcp = TcpView { source, destination, syn, ack: !(syn && to_server), fin: false, rst: false, payload };
    Sighting { link, to_server, entered: began + MS * at, arrived: began + MS * (at + 10), tcp }
}

fn trace() -> TracedVisit {
    let began = Instant::now();
    let visit = Visit { began, connect: MS * 20, ttfb: MS * 40, download: MS * 45 };
    let sightings = vec![
        seen(began, 0, 1, true, 0, 0, true),
        seen(began, 0, 9, true, 1, 0, true),
        seen(began, 0, 9, true, 2, 40, false),
        seen(began, 0, 1, false, 10, 0, true),
        seen(began, 0, 1, true, 20, 6, false),
        seen(began, 0, 1, false, 30, 1448, false),
        seen(began, 0, 1, false, 33, 1448, false),
        seen(began, 0, 1, false, 35, 100, false),
        seen(began, 0, 1, true, 36, 0, false),
        seen(began, 2, 5, true, 3, 6, false),
    ];
    TracedVisit { step: Step::Split, object: "small".to_owned(), visit, sightings }
}

#[test]
fn the_packets_that_matter_are_found() {
    let arrows = arrows(&trace(), 3);
    let found: Vec<_> = arrows.iter().map(|arrow| (arrow.mark, arrow.from, arrow.to, arrow.left)).collect();
    let expected = [
        (Mark::Syn, 0, 1, Duration::ZERO),
        (Mark::SynAck, 1, 0, MS * 10),
        (Mark::Hello, 0, 1, MS * 20),
        (Mark::FirstData, 1, 0, MS * 30),
        (Mark::LastData, 1, 0, MS * 35),
        // The direct link, which comes after those of the row.
        (Mark::Hello, 0, 2, MS * 3),
    ];
    assert_eq!(found, expected);
    assert_eq!(arrows[0].arrived, MS * 10);
}

#[test]
fn the_picture_has_hosts_and_packets() {
    let scenario = Scenario::load("pathway").unwrap();
    let svg = draw(&trace(), &scenario, MS * 50);
    for host in &scenario.hosts {
        assert!(svg.contains(host.as_str()), "{host}");
    }
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>"));
    assert_eq!(svg.matches("<g ").count(), svg.matches("</g>").count());
    assert!(svg.contains("<title>last data: 35.0 to 45.0 ms</title>"), "{svg}");
}
