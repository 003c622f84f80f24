"""A Flower app without our protocol: keeps a run folder as ours does, asks every site once, and can be told to fail or to wait.

`run.name` says what it does: fail, wait, or anything else.
"""

import os
import sys
import time

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from bahefl_flwr import run_folder
from bahefl_flwr.errors import RunFailed
from bahefl_flwr.settings import from_run_config

client_app = ClientApp()
server_app = ServerApp()


@client_app.query("hello")
def hello(message: Message, context: Context) -> Message:
    settings = from_run_config(context.run_config)
    print("said by a worker")
    answer = {
        "site": context.node_config["partition-id"],
        "lr": settings.train.lr,
        "folder": run_folder.find(settings.run.root, context.run_id).path.name,
        "threads": os.environ["OMP_NUM_THREADS"],
    }
    return Message(RecordDict({"answer": ConfigRecord(answer)}), reply_to=message)


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    settings = from_run_config(context.run_config)
    folder = run_folder.create(settings.run.root, settings.run.name, context.run_id, settings.yaml())
    while len(list(grid.get_node_ids())) < settings.federation.sites:
        time.sleep(0.05)
    replies = grid.send_and_receive([Message(RecordDict(), node, "query.hello") for node in grid.get_node_ids()])
    for reply in sorted((dict(reply.content["answer"]) for reply in replies), key=lambda answer: answer["site"]):
        print(
            f"site {reply['site']} lr {reply['lr']} threads {reply['threads']} same folder {reply['folder'] == folder.path.name}"
        )
    if settings.run.name == "fail":
        raise RunFailed("told to fail")
    if settings.run.name == "wait":
        print("waiting", flush=True)
        time.sleep(300)
    folder.write_summary(run_folder.summarise([], experiment=settings.experiment, seconds=1.0))
    sys.stdout.flush()
