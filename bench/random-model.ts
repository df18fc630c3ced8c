/** A llama of 110 million random weights, Q8_0: as slow as a small real model, so that overhead shows in its true size. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type Metadata, type Tensor, writeGguf } from '../node/backends/llama-cpp/demo/training/gguf-writer.ts';
import { CHATML_TEMPLATE } from '../node/backends/llama-cpp/prompt/chat-template.ts';

const DIM = 768;
const LAYERS = 12;
const HEADS = 12;
const FFN = 2048;
const VOCAB = 32_000;
const CONTROL = ['<|endoftext|>', '<|im_start|>', '<|im_end|>'];
const BYTES = 256;

/** Writes the model to `modelPath`; the same bytes each time. */
export function writeRandomModel(modelPath: string): void {
  writeGguf(modelPath, metadata(), tensors());
}

/** Runs `use` with the model in a file that is gone afterwards. */
export async function withRandomModel<T>(use: (modelPath: string) => Promise<T>): Promise<T> {
  const folder = mkdtempSync(path.join(tmpdir(), 'meshnode-bench-'));
  try {
    const modelPath = path.join(folder, 'random-110m.gguf');
    writeRandomModel(modelPath);
    return await use(modelPath);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function metadata(): Metadata[] {
  const vocab = vocabulary();
  return [
    ['general.architecture', 'str', 'llama'],
    ['general.name', 'str', 'random-110m'],
    ['general.file_type', 'u32', 7],
    ['general.quantization_version', 'u32', 2],
    ['llama.context_length', 'u32', 2048],
    ['llama.embedding_length', 'u32', DIM],
    ['llama.block_count', 'u32', LAYERS],
    ['llama.feed_forward_length', 'u32', FFN],
    ['llama.attention.head_count', 'u32', HEADS],
    ['llama.attention.head_count_kv', 'u32', HEADS],
    ['llama.attention.layer_norm_rms_epsilon', 'f32', 1e-5],
    ['llama.rope.dimension_count', 'u32', DIM / HEADS],
    ['llama.vocab_size', 'u32', VOCAB],
    ['tokenizer.ggml.model', 'str', 'gpt2'],
    ['tokenizer.ggml.pre', 'str', 'gpt-2'],
    ['tokenizer.ggml.tokens', 'arr:str', vocab],
    ['tokenizer.ggml.token_type', 'arr:i32', vocab.map((_, id) => (id < VOCAB - CONTROL.length ? 1 : 3))],
    // No merges: every byte of a prompt is a token.
    ['tokenizer.ggml.merges', 'arr:str', []],
    ['tokenizer.ggml.bos_token_id', 'u32', VOCAB - 3],
    ['tokenizer.ggml.eos_token_id', 'u32', VOCAB - 1],
    ['tokenizer.ggml.add_bos_token', 'bool', false],
    ['tokenizer.chat_template', 'str', CHATML_TEMPLATE],
  ];
}

/** GPT-2's names for the bytes, words that no text has, and the control tokens. */
function vocabulary(): string[] {
  let unprintable = 0;
  const nameOf = (byte: number): string => {
    const printable = (byte > 32 && byte < 127) || (byte > 160 && byte < 173) || byte > 173;
    if (printable) return String.fromCharCode(byte);
    unprintable += 1;
    return String.fromCharCode(BYTES + unprintable - 1);
  };
  const bytes = Array.from({ length: BYTES }, (_, byte) => nameOf(byte));
  const words = Array.from({ length: VOCAB - BYTES - CONTROL.length }, (_, index) => `Ġw${index.toString(36)}`);
  return [...bytes, ...words, ...CONTROL];
}

function tensors(): Tensor[] {
  const random = randomFloats(12_345);
  const matrix = (name: string, input: number, output: number, scale: number): Tensor => ({
    name: `${name}.weight`,
    dims: [input, output],
    type: 'Q8_0',
    data: random(input * output, scale),
  });
  const norm = (name: string): Tensor => ({
    name: `${name}.weight`,
    dims: [DIM],
    type: 'F32',
    data: new Float32Array(DIM).fill(1),
  });
  const all = [matrix('token_embd', DIM, VOCAB, 1), norm('output_norm')];
  for (let layer = 0; layer < LAYERS; layer += 1) {
    const name = (part: string): string => `blk.${layer}.${part}`;
    const linear = (part: string, input: number, output: number): Tensor =>
      matrix(name(part), input, output, 2 / Math.sqrt(input));
    all.push(norm(name('attn_norm')), norm(name('ffn_norm')));
    for (const part of ['attn_q', 'attn_k', 'attn_v', 'attn_output']) all.push(linear(part, DIM, DIM));
    all.push(linear('ffn_gate', DIM, FFN), linear('ffn_up', DIM, FFN), linear('ffn_down', FFN, DIM));
  }
  return all;
}

/** Evenly spread around zero, from a linear congruential generator. */
function randomFloats(seed: number): (count: number, scale: number) => Float32Array {
  let state = seed;
  return (count, scale) => {
    const out = new Float32Array(count);
    for (let i = 0; i < count; i += 1) {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      out[i] = (state / 2 ** 32 - 0.5) * scale;
    }
    return out;
  };
}
