"""A service that handles the events of orders for sea_mq (docs/http-handlers.md), with FastAPI.

    python3 handle_orders.py PORT

    SELECT sea_mq.create_endpoint('billing_api', 'http', 'http://127.0.0.1:8000/orders', filter => '{}', audience => 'internal');
    SELECT sea_mq.subscribe('billing__orders', 'orders', endpoint => 'billing_api');
"""

import sys

import uvicorn
from fastapi import FastAPI, Header, Request

app = FastAPI()


# docs:
@app.post("/orders")
async def handle(request: Request, ce_id: str = Header(), ce_type: str = Header(), x_sea_attempt: int = Header()):
    """Called at least once for each message, with the same id each time; of an aggregate's events one after the other."""
    order = await request.json()
    if order["total"] == 0:
        return {"outcome": "skip", "reason": "nothing to pay"}
    if order["total"] < 0:
        return {"outcome": "poison", "reason": "less than nothing"}
    if x_sea_attempt == 1 and order["total"] > 1000:
        return {"outcome": "retry", "reason": "the bank asks for time", "retry_in": 0.2}
    # Emitted in the transaction that marks the message as processed: exactly once.
    invoice = {"order": order["id"], "total": order["total"], "for": ce_id, "of": ce_type}
    return {"events": [{"aggregate_type": "invoice", "aggregate_id": order["id"], "event_type": "InvoiceMade", "payload": invoice}]}
# :docs


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
