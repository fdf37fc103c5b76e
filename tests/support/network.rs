//! A network that can be split, for one test.
//!
//! The test starts itself again inside a network namespace, and there creates one namespace for
//! each node. Nodes are plugged into bridges. Nodes on one bridge reach each other; the test
//! reaches all of them. Packets to another bridge are lost silently, as when a cable is pulled: no
//! error is reported, and connections stay open.

// The test inside prints its output here, too.
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::{Output, Stdio};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

use crate::soon;

const INSIDE: &str = "STENTOR_INSIDE_NETWORK";
const REQUIRED: &str = "STENTOR_REQUIRE_NETWORK";
/// The maximum number of parts of the network.
const BRIDGES: usize = 2;

/// A network of hosts.
#[derive(Debug)]
pub struct Network {
    hosts: BTreeMap<String, Host>,
}

/// A namespace that has an address.
#[derive(Debug)]
struct Host {
    /// A process that runs in the namespace and keeps it alive.
    holder: Child,
    number: u8,
    bridge: usize,
}

impl Network {
    /// Returns a network without hosts if this process already runs in its own namespace. Otherwise
    /// runs the test `name` in such a process and returns `None`: there is nothing left to do.
    ///
    /// Where no namespace can be created, the test is skipped, unless `STENTOR_REQUIRE_NETWORK` is
    /// set.
    ///
    /// # Panics
    ///
    /// If the test fails there, or no test has this name.
    pub async fn for_test(name: &str) -> Option<Self> {
        let Some(marker) = std::env::var_os(INSIDE) else {
            run_inside(name).await;
            return None;
        };
        // Tells the outer process that the test of this name exists.
        std::fs::write(marker, "").expect("a folder for such files");
        ip("link set lo up").await;
        for bridge in 0..BRIDGES {
            ip(&format!("link add bridge{bridge} type bridge forward_delay 0")).await;
            // All bridges have the same address, so nodes see the same test host on each.
            ip(&format!("link set bridge{bridge} address 02:00:00:00:00:fe")).await;
            ip(&format!("addr add 10.99.0.254/32 dev bridge{bridge}")).await;
            ip(&format!("link set bridge{bridge} up")).await;
        }
        Some(Self { hosts: BTreeMap::new() })
    }

    /// The address of the host of this name. A new host is added to bridge 0.
    pub async fn host(&mut self, name: &str) -> IpAddr {
        if let Some(host) = self.hosts.get(name) {
            return host.address();
        }
        let number = u8::try_from(self.hosts.len() + 1).expect("a few hosts");
        let mut command = Command::new("unshare");
        command.args(["--net", "cat"]).kill_on_drop(true);
        let mut holder =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("unshare");
        // `cat` runs in the namespace once it answers, and ends when its input closes.
        let pipes = (holder.stdin.as_mut(), holder.stdout.as_mut());
        let (Some(stdin), Some(stdout)) = pipes else { panic!("no pipes") };
        stdin.write_all(b"!").await.expect("it reads");
        assert_eq!(soon("a namespace", stdout.read_u8()).await.expect("it writes"), b'!');
        let host = Host { holder, number, bridge: 0 };
        let (id, address) = (host.id(), host.address());
        ip(&format!("link add host{number} type veth peer name eth0 netns {id}")).await;
        ip(&format!("link set host{number} master bridge0 up")).await;
        ip(&format!("route replace {address}/32 dev bridge0")).await;
        let link = format!("02:00:00:00:00:{number:02x}");
        for setting in [
            "link set lo up",
            &format!("link set eth0 address {link}"),
            &format!("addr add {address}/24 dev eth0"),
            "link set eth0 up",
        ] {
            let mut inside = command_in(id);
            run(inside.arg("ip").args(setting.split(' '))).await;
        }
        // A fixed ARP entry, so that the test needs no ARP request: a host on the other bridge
        // would not answer it, and the connecting side would get an error.
        for bridge in 0..BRIDGES {
            ip(&format!("neigh replace {address} lladdr {link} dev bridge{bridge} nud permanent"))
                .await;
        }
        self.hosts.insert(name.to_owned(), host);
        address
    }

    /// Plugs a host into the bridge of this number. It then reaches the hosts on that bridge.
    pub async fn plug(&mut self, name: &str, bridge: usize) {
        assert!(bridge < BRIDGES, "there is no bridge {bridge}");
        let host = self.hosts.get_mut(name).expect("a host");
        host.bridge = bridge;
        let (number, address) = (host.number, host.address());
        ip(&format!("link set host{number} master bridge{bridge}")).await;
        // The test's own route follows the host.
        ip(&format!("route replace {address}/32 dev bridge{bridge}")).await;
    }

    /// Plugs all hosts into one bridge.
    pub async fn heal(&mut self) {
        let names: Vec<_> = self.hosts.keys().cloned().collect();
        for name in names {
            self.plug(&name, 0).await;
        }
    }

    /// Whether all hosts reach each other.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.hosts.values().all(|host| host.bridge == 0)
    }

    /// A command that runs a program on a host.
    #[must_use]
    pub fn command(&self, name: &str, program: &Path) -> Command {
        let mut command = command_in(self.hosts[name].id());
        command.arg(program);
        command
    }
}

impl Host {
    fn id(&self) -> u32 {
        self.holder.id().expect("it runs")
    }

    fn address(&self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 99, 0, self.number))
    }
}

fn command_in(holder: u32) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/proc/{holder}/ns/net"));
    command
}

async fn run_inside(name: &str) {
    let Some(mut command) = unshare().await else {
        assert!(std::env::var_os(REQUIRED).is_none(), "no network of its own can be made");
        println!("no network of its own can be made: nothing was tested");
        return;
    };
    let marker = format!("stentor-network-{}-{}", std::process::id(), name.replace("::", "-"));
    let marker = std::env::temp_dir().join(marker);
    command.arg(std::env::current_exe().expect("this program")).env(INSIDE, &marker);
    let status = command.args(["--exact", name, "--nocapture"]).status().await.expect("it runs");
    assert!(status.success(), "it failed in a network of its own");
    std::fs::remove_file(marker).unwrap_or_else(|_| panic!("there is no test '{name}'"));
}

/// A command prefix that runs a command in a namespace, as this user or as root of a user
/// namespace.
async fn unshare() -> Option<Command> {
    const TRY: &str = "ip link add one type bridge && ip link add two type veth peer name three";
    for arguments in [&["--net"][..], &["--net", "--user", "--map-root-user"]] {
        let mut command = Command::new("unshare");
        let tried = command.args(arguments).args(["sh", "-c", TRY]).output().await;
        if tried.is_ok_and(|it| it.status.success()) {
            let mut command = Command::new("unshare");
            command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
            return Some(command);
        }
    }
    None
}

async fn ip(arguments: &str) {
    run(Command::new("ip").args(arguments.split(' '))).await;
}

async fn run(command: &mut Command) {
    let Output { status, stderr, .. } = command.output().await.expect("iproute2 and util-linux");
    assert!(status.success(), "{command:?}: {}", String::from_utf8_lossy(&stderr));
}
