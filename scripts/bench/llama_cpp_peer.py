"""Runs a GGUF file on llama.cpp, for poq-bench-models. The C interface is called directly: nothing of Python's is timed but
one call per token."""

import ctypes

import llama_cpp
from line_server import serve, timed


class Peer:
    def load(self, path, threads, context):
        llama_cpp.llama_backend_init()
        parameters = llama_cpp.llama_model_default_params()
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), parameters)
        if not self.model:
            raise RuntimeError(f"llama.cpp cannot load {path}")
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = context
        parameters.n_threads = threads
        parameters.n_threads_batch = threads
        parameters.no_perf = True
        self.context = llama_cpp.llama_init_from_model(self.model, parameters)
        if not self.context:
            raise RuntimeError("llama.cpp cannot make a context")
        chain = llama_cpp.llama_sampler_chain_default_params()
        self.sampler = llama_cpp.llama_sampler_chain_init(chain)
        llama_cpp.llama_sampler_chain_add(self.sampler, llama_cpp.llama_sampler_init_greedy())
        return {
            "version": llama_cpp.__version__,
            "system": llama_cpp.llama_print_system_info().decode(),
        }

    def decode(self, tokens):
        array = (llama_cpp.llama_token * len(tokens))(*tokens)
        batch = llama_cpp.llama_batch_get_one(array, len(tokens))
        code = llama_cpp.llama_decode(self.context, batch)
        if code != 0:
            raise RuntimeError(f"llama_decode gave {code}")
        # It computes in the background on some devices; a number is only there after this.
        llama_cpp.llama_synchronize(self.context)

    def generate(self, prompt, tokens, logits=False):
        """Greedy: the prompt, then `tokens` tokens, the last of which is chosen but not seen."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        _, prompt_seconds = timed(lambda: self.decode(prompt))
        first_logits = []
        if logits:
            size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
            first_logits = list(llama_cpp.llama_get_logits_ith(self.context, -1)[:size])
        answer = []

        def loop():
            while True:
                answer.append(llama_cpp.llama_sampler_sample(self.sampler, self.context, -1))
                if len(answer) == tokens:
                    return
                self.decode(answer[-1:])

        _, decode_seconds = timed(loop)
        return {
            "prompt_seconds": prompt_seconds,
            "decode_seconds": decode_seconds,
            "tokens": answer,
            "first_logits": first_logits,
        }


@llama_cpp.llama_log_callback
def quiet(level, text, data):
    """llama.cpp logs every layer it loads."""


if __name__ == "__main__":
    llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
    peer = Peer()
    serve({"load": peer.load, "generate": peer.generate})
