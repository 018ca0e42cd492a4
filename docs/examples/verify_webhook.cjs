// Verifies webhooks with the library of Standard Webhooks, unchanged. Each line of standard input is one: secret, headers, body.
const { Webhook } = require("standardwebhooks");
const lines = require("node:fs").readFileSync(0, "utf8").trim().split("\n");
let verified = 0;
for (const line of lines) {
    const one = JSON.parse(line);
    // docs:
    const event = new Webhook(one.secret).verify(one.body, one.headers);
    // :docs
    if (!event.type || !event.timestamp || !event.data) throw new Error(line);
    verified += 1;
}
console.log(verified);
