/** Embedding vectors as clients get them. */

/**
 * The first `dimensions` numbers, scaled to length 1. A vector of zeros stays one: it has no direction.
 *
 * @throws RangeError when a number is not finite.
 */
export function unitVector(vector: readonly number[], dimensions: number): Float32Array {
  const kept = vector.slice(0, dimensions);
  // Scaled first, so that squares neither overflow nor vanish.
  const largest = kept.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  if (!Number.isFinite(largest)) throw new RangeError('An embedding has a number that is not finite.');
  if (largest === 0) return new Float32Array(kept.length);
  const length = Math.sqrt(kept.reduce((sum, value) => sum + (value / largest) ** 2, 0));
  return Float32Array.from(kept, (value) => value / largest / length);
}

/** Little-endian float32 in base64. */
export function floatsBase64(vector: Float32Array): string {
  const bytes = Buffer.alloc(vector.length * 4);
  vector.forEach((value, index) => {
    bytes.writeFloatLE(value, index * 4);
  });
  return bytes.toString('base64');
}
