import { useQuery } from '@tanstack/react-query';
import { request } from '../api/client';
import type { Me } from '../api/types';

/** Who is signed in. */
export function useMe() {
  return useQuery({ queryKey: ['me'], queryFn: ({ signal }) => request<Me>('/v1/me', { signal }), staleTime: 60_000 });
}
