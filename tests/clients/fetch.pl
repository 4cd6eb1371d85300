# Retrieve and delete all messages with Net::POP3, into the files 1, 2, ... of a folder.
use strict;
use warnings;
use Authen::SASL;
use Net::POP3;

my ($security, $port, $ca, $mechanism, $name, $password, $folder) = @ARGV;
my %secured = (SSL_ca_file => $ca);
my $client = Net::POP3->new(
    'localhost', Port => $port, Timeout => 60, SSL => $security eq 'POP3S', %secured
) or die "connect: $@\n";
$client->starttls(%secured) or die "starttls: $@\n" if $security eq 'STLS';
my $count;
if ($mechanism eq 'USER') {
    $count = $client->login($name, $password);
} elsif ($mechanism eq 'APOP') {
    $count = $client->apop($name, $password);
} else {
    my $sasl = Authen::SASL->new(
        mechanism => $mechanism,
        callback => { user => $name, authname => $name, pass => $password },
    );
    $count = $client->auth($sasl, '');
}
$count or die 'login: ', $client->message, "\n";
for my $number (sort { $a <=> $b } keys %{ $client->list }) {
    open(my $file, '>:raw', "$folder/$number") or die "$folder: $!\n";
    $client->get($number, $file) or die "get: ", $client->message, "\n";
    close($file) or die "$folder: $!\n";
    $client->delete($number) or die "delete: ", $client->message, "\n";
}
$client->quit or die "quit\n";
