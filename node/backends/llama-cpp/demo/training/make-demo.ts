/** Turns exported weights into the demo model: `node make-demo.ts EXPORT OUT.gguf [F16|Q8_0]`. */
import { readFileSync } from 'node:fs';
import { CHATML_TEMPLATE } from '../../chat-template.ts';
import { type Metadata, type Tensor, writeGguf } from './gguf-writer.ts';

interface Export {
  readonly tensors: readonly { name: string; dims: readonly number[]; offset: number; count: number }[];
  readonly tokenizer: { readonly vocab: readonly string[]; readonly merges: readonly string[] };
  readonly shape: { readonly dim: number; readonly layers: number; readonly heads: number; readonly ffn: number };
}

const CONTEXT_TOKENS = 512;
/** The last three of the vocabulary are the control tokens. */
const CONTROL_TOKENS = 3;
const FILE_TYPE = { F16: 1, Q8_0: 7 } as const;

const [source, target, quantization = 'F16'] = process.argv.slice(2);
if (source === undefined || target === undefined || (quantization !== 'F16' && quantization !== 'Q8_0')) {
  process.stderr.write('usage: node make-demo.ts EXPORT OUT.gguf [F16|Q8_0]\n');
  process.exit(2);
}
const { tensors, tokenizer, shape } = JSON.parse(readFileSync(`${source}.json`, 'utf8')) as Export;
const raw = readFileSync(`${source}.bin`);
const weights = new Float32Array(raw.buffer.slice(raw.byteOffset, raw.byteOffset + raw.byteLength));

writeGguf(
  target,
  metadata(FILE_TYPE[quantization]),
  tensors.map(
    ({ name, dims, offset, count }): Tensor => ({
      name,
      dims,
      // Vectors stay in full precision: they are small, and norms are sensitive.
      type: dims.length === 1 ? 'F32' : quantization,
      data: weights.subarray(offset, offset + count),
    }),
  ),
);

function metadata(fileType: number): Metadata[] {
  const { vocab, merges } = tokenizer;
  const idOf = (token: string): number => vocab.indexOf(token);
  return [
    ['general.architecture', 'str', 'llama'],
    ['general.name', 'str', 'meshnode-demo'],
    ['general.license', 'str', 'Apache-2.0'],
    ['general.file_type', 'u32', fileType],
    ['general.quantization_version', 'u32', 2],
    ['llama.context_length', 'u32', CONTEXT_TOKENS],
    ['llama.embedding_length', 'u32', shape.dim],
    ['llama.block_count', 'u32', shape.layers],
    ['llama.feed_forward_length', 'u32', shape.ffn],
    ['llama.attention.head_count', 'u32', shape.heads],
    ['llama.attention.head_count_kv', 'u32', shape.heads],
    ['llama.attention.layer_norm_rms_epsilon', 'f32', 1e-5],
    ['llama.rope.dimension_count', 'u32', shape.dim / shape.heads],
    ['llama.rope.freq_base', 'f32', 10_000],
    ['llama.vocab_size', 'u32', vocab.length],
    ['tokenizer.ggml.model', 'str', 'gpt2'],
    ['tokenizer.ggml.pre', 'str', 'gpt-2'],
    ['tokenizer.ggml.tokens', 'arr:str', vocab],
    ['tokenizer.ggml.token_type', 'arr:i32', vocab.map((_, id) => (id < vocab.length - CONTROL_TOKENS ? 1 : 3))],
    ['tokenizer.ggml.merges', 'arr:str', merges],
    ['tokenizer.ggml.bos_token_id', 'u32', idOf('<|endoftext|>')],
    ['tokenizer.ggml.eos_token_id', 'u32', idOf('<|im_end|>')],
    ['tokenizer.ggml.padding_token_id', 'u32', idOf('<|endoftext|>')],
    ['tokenizer.ggml.add_bos_token', 'bool', false],
    ['tokenizer.chat_template', 'str', CHATML_TEMPLATE],
  ];
}
