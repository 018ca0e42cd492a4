/** Helpers for sea_mq. Everything here is a thin layer over its SQL functions; docs/sql.md describes those. */
export { emit, emitMany, type Emitted, type Queryable } from "./emit.js";
export { Reject, Retry, Worker, type Message, type Pool, type PoolClient, type Progress, type WorkerOptions } from "./worker.js";
