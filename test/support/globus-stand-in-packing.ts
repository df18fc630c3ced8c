/** How Globus Compute reads packed arguments, written apart from the code under test: by code points, as Python does. */

/** @throws Error for whatever its deserialiser would refuse. */
export function readPacked(packed: string): { readonly args: unknown[]; readonly kwargs: Record<string, unknown> } {
  const points = Array.from(packed);
  const values: unknown[] = [];
  for (let at = 0; at < points.length; ) {
    const end = points.indexOf('\n', at);
    const digits = points.slice(at, end).join('');
    if (end === -1 || !/^[1-9]\d*$/.test(digits)) throw new Error('no length');
    const buffer = points.slice(end + 1, end + 1 + Number(digits));
    if (buffer.length !== Number(digits)) throw new Error('shorter than its length says');
    const text = buffer.join('');
    if (!text.startsWith('11\n')) throw new Error('not packed as JSON');
    values.push(JSON.parse(text.slice(3)));
    at = end + 1 + Number(digits);
  }
  const [args, kwargs] = values;
  if (values.length !== 2 || !Array.isArray(args)) throw new Error('not two buffers');
  if (typeof kwargs !== 'object' || kwargs === null || Array.isArray(kwargs)) throw new Error('no keyword arguments');
  return { args, kwargs: kwargs as Record<string, unknown> };
}
