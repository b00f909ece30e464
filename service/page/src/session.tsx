/** Who is here and what they may do; cameras by name, since every page says where something was seen. */

import { useQuery } from "@tanstack/react-query";
import { type ReactNode, createContext, useContext, useMemo } from "react";
import { call } from "./api/client";
import type { Camera, Cameras, Permission, Session } from "./api/types";

interface Here {
  session: Session;
  may: (permission: Permission) => boolean;
  cameras: readonly Camera[];
  cameraName: (id: string | null) => string;
}

const Context = createContext<Here | null>(null);

export function Present({ session, children }: { session: Session; children: ReactNode }) {
  const { data } = useQuery({ queryKey: ["cameras"], queryFn: () => call<Cameras>("/cameras"), staleTime: 60_000 });
  const here = useMemo<Here>(() => {
    const cameras = data?.cameras ?? [];
    const names = new Map(cameras.map(({ id, name }) => [id, name ?? id]));
    return {
      session,
      may: (permission) => session.permissions.includes(permission),
      cameras,
      cameraName: (id) => (id === null ? "No camera" : (names.get(id) ?? id)),
    };
  }, [session, data]);
  return <Context value={here}>{children}</Context>;
}

export function useHere(): Here {
  const here = useContext(Context);
  if (!here) throw new Error("Nobody is signed in here.");
  return here;
}
