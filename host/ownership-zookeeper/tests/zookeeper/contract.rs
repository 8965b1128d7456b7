//! The contract of ownership, against real ZooKeeper servers.

use maxhost_ownership::contract::run_all;
use maxhost_ownership_zookeeper::test_servers::Ensemble;

use crate::support::Cluster;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_server_keeps_the_contract() {
    run_all(&Cluster::of(Ensemble::start(1).await).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_servers_keep_the_contract() {
    run_all(&Cluster::of(Ensemble::start(3).await).await).await;
}
