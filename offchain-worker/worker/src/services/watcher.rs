//! Follows the chain: best blocks as they are announced, and a look of its own when none is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use poq_chain::Block;
use tokio::sync::watch;
use tokio::time::{interval, MissedTickBehavior};

use super::{class_label, Ctx, Served};
use crate::config::TimeSource;
use crate::health::About;
use crate::metrics;
use crate::time::{wall_ms, SKEW_LIMIT};

pub(crate) const NAME: &str = "watcher";

/// Publishes the best block to `heads` whenever it changes.
pub(crate) async fn run(ctx: Arc<Ctx>, heads: Arc<watch::Sender<Block>>) -> Served {
    let mut announced = ctx.client.best_watch();
    let mut last_announced = Instant::now();
    let mut poll = interval(ctx.config.chain.poll_interval);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ctx.board.beat(NAME);
        tokio::select! {
            () = ctx.stop.now.cancelled() => return Ok(()),
            changed = announced.changed() => match changed {
                Ok(()) => {
                    let block = *announced.borrow_and_update();
                    last_announced = Instant::now();
                    check_skew(&ctx, &block);
                    publish(&heads, block);
                }
                Err(_) => {
                    // The client lives as long as this service: this cannot be, and must not spin.
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    announced = ctx.client.best_watch();
                }
            },
            _ = poll.tick() => match ctx.client.best().await {
                Ok(block) => {
                    // Announcements that have stopped while the chain goes on: the subscription is dead although the
                    // connection lives. Nothing is lost, because this poll feeds the same channel; the client, which holds the
                    // subscription, gives a silent connection up and makes another.
                    if block.number > heads.borrow().number && last_announced.elapsed() > ctx.config.chain.poll_interval {
                        tracing::warn!(block = block.number, "blocks are no longer announced; this poll sees them");
                        metrics::chain_stalled();
                        last_announced = Instant::now();
                    }
                    publish(&heads, block);
                }
                Err(error) => {
                    metrics::call_failed("best_block", class_label(&error));
                    tracing::warn!(%error, "the best block cannot be read");
                }
            },
        }
        report(&ctx, *heads.borrow());
    }
}

fn publish(heads: &watch::Sender<Block>, block: Block) {
    heads.send_if_modified(|head| {
        let changed = head.hash != block.hash;
        *head = block;
        changed
    });
}

/// A block that has just been announced bears the time of its making: what this machine's clock says must be near.
fn check_skew(ctx: &Ctx, block: &Block) {
    if ctx.config.chain.time != TimeSource::System {
        return;
    }
    let skew = Duration::from_millis(wall_ms().abs_diff(block.timestamp_ms));
    let problem = (skew > SKEW_LIMIT).then(|| {
        format!(
            "this machine's clock and the chain's differ by {} s, and blob servers refuse requests that are a minute off; \
             set the clock (NTP), or chain.time = \"chain\" where the chain does not follow the wall clock",
            skew.as_secs()
        )
    });
    ctx.board.put(About::Clock, problem);
}

fn report(ctx: &Ctx, head: Block) {
    let silence = ctx.client.last_heard();
    metrics::chain(head.number, head.timestamp_ms, silence);
    let age = Duration::from_millis(wall_ms().saturating_sub(head.timestamp_ms));
    let problem = if silence > ctx.config.chain.stall_after {
        Some(format!(
            "the chain has not answered for {} s; is {} up?",
            silence.as_secs(),
            ctx.client.endpoint()
        ))
    } else {
        ctx.config.chain.max_block_age.filter(|limit| age > *limit).map(|limit| {
            format!(
                "the best block is {} s old, above chain.max_block_age of {} s",
                age.as_secs(),
                limit.as_secs()
            )
        })
    };
    ctx.board.put(About::Chain, problem);
}
