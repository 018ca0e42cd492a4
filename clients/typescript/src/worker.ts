import type { Queryable } from "./emit.js";

/** What a worker needs of a connection: a PoolClient of pg is one. */
export interface PoolClient extends Queryable {
  release(destroy?: Error | boolean): void;
  on(event: "error", listener: (error: Error) => void): unknown;
  removeListener(event: "error", listener: (error: Error) => void): unknown;
}

/** What a worker needs of a pool: a Pool of pg is one, whichever version of its types is installed. */
export interface Pool extends Queryable {
  connect(): Promise<PoolClient>;
}

/** A received message; the columns of sea_mq.receive. */
export interface Message {
  id: string;
  message_id: string;
  source_context: string | null;
  event_type: string;
  event_version: number | null;
  subject: string;
  aggregate_type: string | null;
  aggregate_id: string | null;
  payload: any;
  headers: Record<string, string>;
  correlation_id: string | null;
  causation_id: string | null;
  attempts: number;
  created_at: Date;
  lease_until: Date;
}

/** Throw it in a handler: no further attempt can help. The message becomes a dead letter now. */
export class Reject extends Error {}

/** Throw it in a handler: try again after `seconds`. Any other error means: try again after the subscription's delay. */
export class Retry extends Error {
  constructor(reason: string, readonly seconds: number) {
    super(reason);
  }
}

/** What a worker has done so far. `lost`: messages that somebody else has completed after our lease had run out. */
export interface Progress {
  completed: number;
  failed: number;
  rejected: number;
  lost: number;
}

export interface WorkerOptions {
  batch?: number;
  /** Seconds. */
  lease?: number;
  /** Seconds that one call of receive waits. */
  wait?: number;
  perAggregate?: boolean;
  /** Seconds between lines about the progress. */
  logEvery?: number;
  log?: (line: string) => void;
}

/** What PostgreSQL says when a message is no longer ours. */
const NOT_UNDER_WAY = "55000";

/**
 * Receives the messages of a subscription and hands each to `handle(client, message)`, in a transaction of the client that also
 * completes it. A lost connection is made again, for ever. Leases are renewed while a batch is worked on, so the pool needs two
 * connections for a worker. Run as many workers as you like.
 */
export class Worker {
  readonly progress: Progress = { completed: 0, failed: 0, rejected: 0, lost: 0 };
  readonly #options: Required<WorkerOptions>;
  readonly #inHand = new Set<string>();
  #stopping = false;
  #wake = (): void => {};

  constructor(
    readonly pool: Pool,
    readonly subscription: string,
    readonly handle: (client: PoolClient, message: Message) => Promise<void>,
    options: WorkerOptions = {},
  ) {
    const log = (line: string): void => console.error(`sea_mq ${subscription}: ${line}`);
    this.#options = { batch: 10, lease: 30, wait: 5, perAggregate: false, logEvery: 60, log, ...options };
  }

  /** Ends `run` after the messages in hand. */
  stop(): void {
    this.#stopping = true;
    this.#wake();
  }

  /** Works until `stop` (or SIGTERM, SIGINT with `signals`), or until nothing has come for `idle` seconds. */
  async run({ signals = false, idle = Infinity }: { signals?: boolean; idle?: number } = {}): Promise<Progress> {
    const stop = (): void => this.stop();
    if (signals) for (const name of ["SIGTERM", "SIGINT"] as const) process.once(name, stop);
    let pause = 100;
    for (let more = true; more && !this.#stopping; ) {
      let client: PoolClient | undefined;
      let broken: Error | undefined;
      const lost = (error: Error): void => void (broken = error);
      try {
        client = await this.pool.connect();
        client.on("error", lost);
        pause = 100;
        more = await this.#work(client, idle, () => broken);
      } catch (error) {
        broken ??= error as Error;
        this.#options.log(`no connection, again in ${pause} ms: ${broken.message}`);
        await this.#sleep(pause * (0.5 + Math.random() / 2));
        pause = Math.min(pause * 2, 15_000);
      } finally {
        client?.removeListener("error", lost);
        client?.release(broken ?? false);
      }
    }
    if (signals) for (const name of ["SIGTERM", "SIGINT"] as const) process.removeListener(name, stop);
    this.#options.log(`ended: ${this.#summary()}`);
    return this.progress;
  }

  /** Returns whether there is more to do: false after `idle` seconds without a message. */
  async #work(client: PoolClient, idle: number, broken: () => Error | undefined): Promise<boolean> {
    const { logEvery, log } = this.#options;
    let last = Date.now();
    let logged = last;
    while (!this.#stopping) {
      const messages = await this.#receive(client);
      const renewal = setInterval(() => void this.#renew(), (this.#options.lease * 1000) / 3);
      try {
        for (const message of messages) await this.#handleOne(client, message, broken);
      } finally {
        clearInterval(renewal);
        this.#inHand.clear();
      }
      const now = Date.now();
      if (messages.length > 0) last = now;
      if (now - logged >= logEvery * 1000) {
        logged = now;
        log(this.#summary());
      }
      if (now - last >= idle * 1000) return false;
    }
    return true;
  }

  async #receive(client: PoolClient): Promise<Message[]> {
    const { batch, lease, wait, perAggregate } = this.#options;
    const sql = `SELECT * FROM sea_mq.receive($1, max => $2, lease => make_interval(secs => $3), wait => make_interval(secs => $4),
      per_aggregate => $5)`;
    const { rows } = await client.query(sql, [this.subscription, batch, lease, wait, perAggregate]);
    for (const message of rows as Message[]) this.#inHand.add(message.id);
    return rows;
  }

  async #handleOne(client: PoolClient, message: Message, broken: () => Error | undefined): Promise<void> {
    try {
      await client.query("BEGIN");
      // What is emitted in this transaction says where it comes from.
      const names = ["sea_mq.correlation_id", message.correlation_id ?? "", "sea_mq.causation_id", message.message_id];
      await client.query("SELECT set_config($1, $2, true), set_config($3, $4, true)", names);
      await this.handle(client, message);
      await client.query("SELECT sea_mq.complete($1)", [message.id]);
      await client.query("COMMIT");
      this.progress.completed += 1;
    } catch (error) {
      // Ask the connection, not the error. If it is gone, this throws, the lease runs out and the message comes again.
      if (broken()) throw broken();
      await client.query("ROLLBACK");
      await this.#settle(client, message, error as Error & { code?: string });
    } finally {
      this.#inHand.delete(message.id);
    }
  }

  /** Says what becomes of a message that could not be handled. Its work has been rolled back. */
  async #settle(client: PoolClient, message: Message, error: Error & { code?: string }): Promise<void> {
    try {
      if (error instanceof Reject) {
        await client.query("SELECT sea_mq.reject($1, $2)", [message.id, error.message]);
        this.progress.rejected += 1;
      } else {
        const seconds = error instanceof Retry ? error.seconds : null;
        // A handler may raise 55000 for reasons of its own: if the message is no longer ours, this raises it too.
        await client.query("SELECT sea_mq.extend_lease($1)", [message.id]);
        const fail = "SELECT sea_mq.fail($1, $2, retry_in => make_interval(secs => $3::float8))";
        await client.query(fail, [message.id, `${error.name}: ${error.message}`, seconds]);
        this.progress.failed += 1;
      }
    } catch (second) {
      if ((second as { code?: string }).code !== NOT_UNDER_WAY) throw second;
      this.progress.lost += 1;
    }
    this.#options.log(`message ${message.message_id}, attempt ${message.attempts}: ${error.message}`);
  }

  async #renew(): Promise<void> {
    for (const id of this.#inHand) {
      try {
        await this.pool.query("SELECT sea_mq.extend_lease($1, make_interval(secs => $2))", [id, this.#options.lease]);
      } catch (error) {
        if ((error as { code?: string }).code !== NOT_UNDER_WAY) this.#options.log(`cannot renew a lease: ${(error as Error).message}`);
      }
    }
  }

  #sleep(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  #summary(): string {
    const { completed, failed, rejected, lost } = this.progress;
    return `${completed} completed, ${failed} failed, ${rejected} rejected, ${lost} lost`;
  }
}
