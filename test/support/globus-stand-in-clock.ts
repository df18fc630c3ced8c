/** The real clock at a multiple of its speed: minutes of polling in a test of seconds. */
import { type Clock, systemClock } from '../../node/common/clock.ts';

export function fastClock(factor: number): Clock {
  return {
    now: () => systemClock.now() * factor,
    after: (delayMs, callback) => systemClock.after(delayMs / factor, callback),
    every: (periodMs, callback) => systemClock.every(periodMs / factor, callback),
  };
}
