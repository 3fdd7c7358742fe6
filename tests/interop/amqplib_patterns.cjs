// The tutorials' patterns with amqplib's promises. One line for each: `ok amqplib NAME` or `FAILED amqplib NAME`.
'use strict';

const assert = require('node:assert/strict');
const crypto = require('node:crypto');
const amqp = require('amqplib');

const URL = process.env.AMQP_URL;
// After this long a pattern has failed, whatever it waits for.
const MILLISECONDS_MAX = 60_000;

const unique = (name) => `interop.${name}.${crypto.randomBytes(4).toString('hex')}`;
const text = (message) => message.content.toString();
const connect = () => amqp.connect(URL);

// Resolves to the next `count` messages of a queue, acknowledged one by one.
function take(channel, queue, count) {
    return new Promise((resolve, reject) => {
        const taken = [];
        const tag = unique('tag');
        channel.consume(queue, async (message) => {
            if (message === null) {
                reject(new Error('the server cancelled the consumer'));
                return;
            }
            taken.push(message);
            channel.ack(message);
            if (taken.length === count) {
                await channel.cancel(tag);
                resolve(taken);
            }
        }, { consumerTag: tag }).catch(reject);
    });
}

const depth = async (channel, queue) => (await channel.checkQueue(queue)).messageCount;

const patterns = {
    // Two workers share a durable queue; prefetch keeps one from taking all.
    async work_queue() {
        const queue = unique('work');
        const connections = await Promise.all([connect(), connect(), connect()]);
        const [producer, ...workers] = await Promise.all(connections.map((c) => c.createChannel()));
        await producer.assertQueue(queue, { durable: true });
        const expected = Array.from({ length: 40 }, (_, n) => `task ${n}`);
        const done = workers.map(() => []);
        const finished = new Promise((resolve, reject) => {
            workers.forEach(async (worker, index) => {
                try {
                    await worker.prefetch(1);
                    await worker.consume(queue, (message) => {
                        if (message === null) return; // the queue was deleted at the end
                        assert.equal(message.properties.deliveryMode, 2);
                        done[index].push(text(message));
                        setTimeout(() => worker.ack(message), 2);
                        if (done.flat().length === expected.length) resolve();
                    });
                } catch (error) {
                    reject(error);
                }
            });
        });
        for (const body of expected) producer.sendToQueue(queue, Buffer.from(body), { persistent: true });
        await finished;
        assert.deepEqual(done.flat().sort(), [...expected].sort());
        assert.ok(done.every((bodies) => bodies.length > 0), 'both workers had work');
        await new Promise((resolve) => setTimeout(resolve, 50));
        await producer.deleteQueue(queue);
        for (const connection of connections) await connection.close();
    },

    // Every subscriber of a fanout exchange gets everything, in order.
    async publish_subscribe() {
        const exchange = unique('logs');
        const connection = await connect();
        const channel = await connection.createChannel();
        await channel.assertExchange(exchange, 'fanout', { durable: false });
        const queues = [];
        for (let n = 0; n < 3; n += 1) {
            const { queue } = await channel.assertQueue('', { exclusive: true });
            await channel.bindQueue(queue, exchange, '');
            queues.push(queue);
        }
        const expected = Array.from({ length: 100 }, (_, n) => `line ${n}`);
        for (const body of expected) channel.publish(exchange, '', Buffer.from(body));
        for (const queue of queues) {
            assert.deepEqual((await take(channel, queue, 100)).map(text), expected);
        }
        await channel.deleteExchange(exchange);
        await connection.close();
    },

    // A direct exchange gives each queue the severities that it asked for.
    async routing() {
        const exchange = unique('severities');
        const connection = await connect();
        const channel = await connection.createChannel();
        await channel.assertExchange(exchange, 'direct', { durable: false });
        const { queue } = await channel.assertQueue('', { exclusive: true });
        for (const severity of ['warning', 'error']) await channel.bindQueue(queue, exchange, severity);
        for (const [severity, body] of [['info', '1'], ['error', '2'], ['warning', '3'], ['debug', '4'], ['error', '5']]) {
            channel.publish(exchange, severity, Buffer.from(body));
        }
        const got = await take(channel, queue, 3);
        assert.deepEqual(got.map((m) => [m.fields.routingKey, text(m)]), [['error', '2'], ['warning', '3'], ['error', '5']]);
        assert.equal(await depth(channel, queue), 0);
        await channel.unbindQueue(queue, exchange, 'error');
        channel.publish(exchange, 'error', Buffer.from('6'));
        channel.publish(exchange, 'warning', Buffer.from('7'));
        assert.deepEqual((await take(channel, queue, 1)).map(text), ['7']);
        await channel.deleteExchange(exchange);
        await connection.close();
    },

    // Words, `*` and `#` of a topic exchange, also through a second exchange.
    async topics() {
        const [exchange, second] = [unique('topics'), unique('second')];
        const connection = await connect();
        const channel = await connection.createChannel();
        await channel.assertExchange(exchange, 'topic', { durable: false });
        await channel.assertExchange(second, 'fanout', { durable: false });
        await channel.bindExchange(second, exchange, 'kern.#');
        const queues = {};
        for (const key of ['kern.*', '*.critical', '#']) {
            queues[key] = (await channel.assertQueue('', { exclusive: true })).queue;
            await channel.bindQueue(queues[key], exchange, key);
        }
        queues.second = (await channel.assertQueue('', { exclusive: true })).queue;
        await channel.bindQueue(queues.second, second, '');
        const sent = ['kern.info', 'kern.critical', 'mail.critical', 'kern', 'kern.disk.info', 'mail'];
        for (const key of sent) channel.publish(exchange, key, Buffer.from(key));
        const expected = {
            'kern.*': ['kern.info', 'kern.critical'],
            '*.critical': ['kern.critical', 'mail.critical'],
            '#': sent,
            second: ['kern.info', 'kern.critical', 'kern', 'kern.disk.info'],
        };
        for (const [name, keys] of Object.entries(expected)) {
            assert.deepEqual((await take(channel, queues[name], keys.length)).map(text), keys, name);
            assert.equal(await depth(channel, queues[name]), 0);
        }
        await channel.deleteExchange(exchange);
        await channel.deleteExchange(second);
        await connection.close();
    },

    // Requests and replies with an exclusive reply queue and correlation ids.
    async rpc() {
        const queue = unique('rpc');
        const [serving, asking] = await Promise.all([connect(), connect()]);
        const server = await serving.createChannel();
        await server.assertQueue(queue, { durable: false });
        await server.prefetch(1);
        await server.consume(queue, (message) => {
            if (message === null) return; // the queue was deleted at the end
            const answer = Buffer.from(String(Number(text(message)) ** 2));
            const { correlationId, replyTo } = message.properties;
            server.sendToQueue(replyTo, answer, { correlationId });
            server.ack(message);
        });
        const client = await asking.createChannel();
        const { queue: replyTo } = await client.assertQueue('', { exclusive: true });
        for (let n = 0; n < 20; n += 1) {
            client.sendToQueue(queue, Buffer.from(String(n)), { correlationId: `c${n}`, replyTo });
        }
        const got = (await take(client, replyTo, 20)).map((m) => [m.properties.correlationId, text(m)]);
        assert.deepEqual(got, Array.from({ length: 20 }, (_, n) => [`c${n}`, String(n ** 2)]));
        await server.deleteQueue(queue);
        await serving.close();
        await asking.close();
    },

    // A confirm channel: callbacks for each publish, and a mandatory message comes back.
    async confirms() {
        const queue = unique('confirms');
        const connection = await connect();
        const channel = await connection.createConfirmChannel();
        await channel.assertQueue(queue, { durable: true });
        let confirmed = 0;
        for (let n = 0; n < 100; n += 1) {
            channel.sendToQueue(queue, Buffer.from(String(n)), { persistent: true }, (error) => {
                assert.equal(error, null);
                confirmed += 1;
            });
        }
        await channel.waitForConfirms();
        assert.equal(confirmed, 100);
        assert.equal(await depth(channel, queue), 100);
        const returned = new Promise((resolve) => { channel.once('return', resolve); });
        channel.publish('', unique('nobody'), Buffer.from('lost'), { mandatory: true });
        const message = await returned;
        assert.equal(text(message), 'lost');
        assert.equal(message.fields.replyCode, 312);
        await channel.waitForConfirms();
        const bodies = (await take(channel, queue, 100)).map(text);
        assert.deepEqual(bodies, Array.from({ length: 100 }, (_, n) => String(n)));
        await channel.deleteQueue(queue);
        await connection.close();
    },

    // Bodies around every size at which something changes.
    async large_bodies() {
        const connection = await connect();
        const channel = await connection.createConfirmChannel();
        const { queue } = await channel.assertQueue('', { exclusive: true });
        const bodies = [0, 1, 131_064, 131_065, 1_048_576, 3_000_000].map((size) => crypto.randomBytes(size));
        for (const body of bodies) channel.sendToQueue(queue, body);
        await channel.waitForConfirms();
        const got = await take(channel, queue, bodies.length);
        got.forEach((message, index) => assert.ok(message.content.equals(bodies[index]), `body ${index}`));
        await connection.close();
    },

    // A channel that is closed for an error leaves the connection alone.
    async channel_errors() {
        const connection = await connect();
        const channel = await connection.createChannel();
        const closed = new Promise((resolve) => { channel.once('error', resolve); });
        await assert.rejects(channel.checkQueue(unique('missing')), { code: 404 });
        assert.equal((await closed).code, 404);
        const other = await connection.createChannel();
        const { queue } = await other.assertQueue('', { exclusive: true });
        other.sendToQueue(queue, Buffer.from('still here'));
        assert.deepEqual((await take(other, queue, 1)).map(text), ['still here']);
        await connection.close();
    },
};

async function main() {
    for (const [name, pattern] of Object.entries(patterns)) {
        let timer;
        const late = new Promise((_, reject) => {
            timer = setTimeout(() => reject(new Error('not done in time')), MILLISECONDS_MAX);
        });
        try {
            await Promise.race([pattern(), late]);
            console.log(`ok amqplib ${name}`);
        } catch (error) {
            console.log(error);
            console.log(`FAILED amqplib ${name}`);
        } finally {
            clearTimeout(timer);
        }
    }
    process.exit(0);
}

process.on('uncaughtException', (error) => { console.log(error); console.log('FAILED amqplib uncaught'); process.exit(1); });
main();
