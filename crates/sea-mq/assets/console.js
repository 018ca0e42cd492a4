// @ts-check
"use strict";
// The console works without this: it adds plots, and what comes in while one looks.

/** @param {string} name */
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** @param {HTMLElement} box @param {number[][]} data @param {string[]} names */
function plot(box, data, names) {
    const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line") } };
    /** @param {number} at */
    const clock = (at) => new Date(at * 1000).toTimeString().slice(0, 5);
    const times = { ...axis, values: (/** @type {unknown} */ _plot, /** @type {number[]} */ marks) => marks.map(clock), space: 70 };
    const strokes = [colour("--accent"), colour("--warn")];
    const series = names.map((label, at) => ({ label, stroke: strokes[at], width: 2, points: { show: false } }));
    box.replaceChildren();
    if (data[0].length < 2) {
        box.textContent = "A plot needs a minute.";
        return;
    }
    // @ts-ignore: uPlot is a script of its own.
    new uPlot({ width: box.clientWidth, height: 160, series: [{}, ...series], axes: [times, axis], legend: { live: false } }, data, box);
}

async function draw(/** @type {HTMLElement} */ plots) {
    const answer = await fetch(plots.dataset.rates ?? "", { headers: { Accept: "application/json" } });
    if (!answer.ok) return;
    const rates = await answer.json();
    const shown = [["rates", ["published", "handled"]], ["waiting", ["events", "messages"]], ["latency", ["seconds"]]];
    for (const [key, names] of shown) {
        const box = plots.querySelector(`[data-plot="${key}"]`);
        const data = rates[/** @type {string} */ (key)];
        if (box instanceof HTMLElement) plot(box, [rates.at, ...data], /** @type {string[]} */ (names));
    }
}

for (const plots of document.querySelectorAll(".plots")) {
    if (!(plots instanceof HTMLElement)) continue;
    void draw(plots);
    setInterval(() => { if (!document.hidden) void draw(plots); }, 10000);
}

for (const list of document.querySelectorAll("[data-tail]")) {
    if (!(list instanceof HTMLElement)) continue;
    const source = new EventSource(list.dataset.tail ?? "");
    /** @param {string} text */
    const add = (text) => {
        const item = document.createElement("li");
        item.textContent = text;
        list.prepend(item);
        while (list.children.length > 200) list.lastElementChild?.remove();
    };
    source.addEventListener("event", (message) => {
        const event = JSON.parse(message.data);
        add(`${event.stream_seq}  ${event.subject}  ${event.aggregate_id}  ${JSON.stringify(event.payload)}`);
    });
    source.addEventListener("gap", (message) => add(`… ${JSON.parse(message.data).lost} events were too many to show`));
}
