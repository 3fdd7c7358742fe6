//! A broker for each test: nothing to install, nothing shared, no waiting for time to pass.
//!
//! The fixture below is what a test suite would have; the two "tests" of an application's retry logic use it side by
//! side. Run: `cargo run --example test_fixture`

use std::time::Duration;

use warren::embed::{
    Broker, Channel, ConsumeOptions, EmbedError, Message, QueueOptions, TestClock,
};

/// A broker with the application's queues, and the clock that it goes by.
struct Fixture {
    broker: Broker,
    channel: Channel,
    clock: TestClock,
}

impl Fixture {
    async fn start() -> Result<Self, EmbedError> {
        let clock = TestClock::stopped();
        let broker = Broker::builder().clock(clock.clone()).start().await?;
        let channel = broker.channel()?;
        let retry = QueueOptions::durable()
            .argument("x-message-ttl", 60_000)
            .argument("x-dead-letter-exchange", "")
            .argument("x-dead-letter-routing-key", "work");
        channel
            .declare_queue("work", &QueueOptions::durable())
            .await?;
        channel.declare_queue("retry", &retry).await?;
        Ok(Self {
            broker,
            channel,
            clock,
        })
    }

    /// Lets time pass, and what is due be done.
    async fn advance(&self, by: Duration) -> Result<(), EmbedError> {
        self.clock.advance(by);
        self.broker.do_what_is_due().await
    }
}

/// The application: what fails is tried again a minute later.
async fn work_once(channel: &Channel, fails: bool) -> Result<bool, EmbedError> {
    let mut consumer = channel.consume("work", &ConsumeOptions::prefetch(1))?;
    let Some(task) = consumer.try_next() else {
        return Ok(false);
    };
    if fails {
        let again = Message::new(task.body().await?).persistent();
        channel.publish("", "retry", again).await?;
    }
    task.ack()?;
    Ok(true)
}

async fn a_failed_task_comes_back_after_a_minute() -> Result<(), EmbedError> {
    let fixture = Fixture::start().await?;
    fixture
        .channel
        .publish("", "work", Message::new("task").persistent())
        .await?;
    assert!(work_once(&fixture.channel, true).await?);
    fixture.advance(Duration::from_secs(59)).await?;
    assert!(!work_once(&fixture.channel, false).await?, "not yet");
    fixture.advance(Duration::from_secs(1)).await?;
    assert!(work_once(&fixture.channel, false).await?, "now");
    fixture.broker.shutdown().await
}

async fn a_task_that_works_is_gone() -> Result<(), EmbedError> {
    let fixture = Fixture::start().await?;
    fixture
        .channel
        .publish("", "work", Message::new("task").persistent())
        .await?;
    assert!(work_once(&fixture.channel, false).await?);
    fixture.advance(Duration::from_secs(3_600)).await?;
    assert!(!work_once(&fixture.channel, false).await?);
    fixture.broker.shutdown().await
}

#[tokio::main]
async fn main() -> Result<(), EmbedError> {
    tokio::try_join!(
        a_failed_task_comes_back_after_a_minute(),
        a_task_that_works_is_gone()
    )?;
    println!("an hour of retries, tested at once");
    Ok(())
}
