// A service that handles the events of orders for sea_mq (docs/http-handlers.md), with nothing but Node.
//
//     node --experimental-strip-types handle_orders.ts PORT

import { createServer, type IncomingMessage } from "node:http";

// docs:
type Answer =
    | { events: { aggregate_type: string; aggregate_id: string; event_type: string; payload: unknown }[] }
    | { outcome: "skip" | "poison" | "retry"; reason: string; retry_in?: number };

function handle(order: { id: string; total: number }, headers: IncomingMessage["headers"]): Answer {
    if (order.total === 0) return { outcome: "skip", reason: "nothing to pay" };
    if (order.total < 0) return { outcome: "poison", reason: "less than nothing" };
    if (headers["x-sea-attempt"] === "1" && order.total > 1000) {
        return { outcome: "retry", reason: "the bank asks for time", retry_in: 0.2 };
    }
    // Emitted in the transaction that marks the message as processed: exactly once.
    const payload = { order: order.id, total: order.total, for: headers["ce-id"], of: headers["ce-type"] };
    return { events: [{ aggregate_type: "invoice", aggregate_id: order.id, event_type: "InvoiceMade", payload }] };
}
// :docs

const server = createServer(async (request, response) => {
    const parts: Buffer[] = [];
    for await (const part of request) parts.push(part);
    try {
        const answer = handle(JSON.parse(Buffer.concat(parts).toString()), request.headers);
        response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(answer));
    } catch (error) {
        // What cannot be read now cannot be read later.
        response.writeHead(error instanceof SyntaxError ? 400 : 500).end(String(error));
    }
});
server.listen(Number(process.argv[2]), "127.0.0.1");
