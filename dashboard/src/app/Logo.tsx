export function Logo({ size = 28 }: { size?: number }) {
  return (
    <svg width={size} height={size} viewBox="0 0 32 32" aria-hidden="true">
      <rect width="32" height="32" rx="8" fill="#0d1117" />
      <rect x=".5" y=".5" width="31" height="31" rx="7.5" fill="none" stroke="#5eead4" strokeOpacity=".35" />
      <path d="M7 10h18M7 16h11M7 22h6" stroke="#5eead4" strokeWidth="3" strokeLinecap="round" />
      <circle cx="24" cy="22" r="3" fill="#5eead4" />
    </svg>
  );
}
