/** What sessions, services and folders need of a manager, and how its answers are read. */
import { isRecord } from '../../../protocols/inference/bodies/body-json.ts';
import { MeshError } from '../../common/errors.ts';
import type { ManagerClient } from '../cluster/manager-client.ts';

/** A manager as calls are made to it. */
export type ManagerCaller = Pick<ManagerClient, 'call' | 'sessionPrefix'>;

export interface ManagedCluster {
  readonly manager: ManagerCaller;
  /** What errors call the cluster. */
  readonly cluster: string;
}

type Fields = Readonly<Record<string, unknown>>;

/** The objects of a list. @throws MeshError `upstream_error` when it is none. */
export function listOf(answer: unknown, cluster: string): readonly Fields[] {
  if (!Array.isArray(answer)) throw unreadable(cluster, 'a list was expected');
  return answer.filter(isRecord);
}

/** @throws MeshError `upstream_error` when it is no object. */
export function objectOf(answer: unknown, cluster: string): Fields {
  if (!isRecord(answer)) throw unreadable(cluster, 'an object was expected');
  return answer;
}

/** The field as text; empty when it is something else. */
export function textOf(fields: Fields, name: string): string {
  const value = fields[name];
  return typeof value === 'string' ? value : '';
}

/** The field as a whole number; 0 when it is something else. */
export function countOf(fields: Fields, name: string): number {
  const value = fields[name];
  return typeof value === 'number' && Number.isSafeInteger(value) ? value : 0;
}

/** Fields that were given; what is null or undefined stays out of a request. */
export function given(fields: Fields): Record<string, unknown> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== null && value !== undefined));
}

export function unreadable(cluster: string, why: string): MeshError {
  return new MeshError('upstream_error', `${cluster} answered something that cannot be read: ${why}`);
}
