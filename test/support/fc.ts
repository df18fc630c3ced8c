/**
 * fast-check as the tests use it: the same cases in every run, so that a change is judged by what it changes.
 * `PROPERTY_SEED=random` (or a number) looks for new ones, `PROPERTY_RUNS=N` for more of them; each failure prints its seed.
 */
import fc from 'fast-check';

const seed = process.env['PROPERTY_SEED'] ?? '20261121';
const runs = process.env['PROPERTY_RUNS'];

fc.configureGlobal({
  ...(seed === 'random' ? {} : { seed: Number(seed) }),
  ...(runs === undefined ? {} : { numRuns: Number(runs) }),
});

export default fc;
